"""Ring 5: the ``batchkit`` command."""

from __future__ import annotations

from airflow_batchkit.cli.entry import main

__all__ = ["main"]
