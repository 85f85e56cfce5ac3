"""Ring 3: whether jobs run at all, asked of Airflow's REST API, from outside of Airflow and from inside."""

from __future__ import annotations

from airflow_batchkit.watching.expectations import Limits, Watched

__all__ = ["Limits", "Watched"]
