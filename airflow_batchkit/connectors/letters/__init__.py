"""Dead letters that are settled, wherever they are kept: looked at, run again, removed."""

from __future__ import annotations

from airflow_batchkit.connectors.letters.filter import LetterFilter
from airflow_batchkit.connectors.letters.source import DeadLetterSource

__all__ = ["DeadLetterSource", "LetterFilter"]
