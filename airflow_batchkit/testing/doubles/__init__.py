"""In-memory doubles of everything that the engine talks to; they remember from leg to leg."""

from __future__ import annotations

from airflow_batchkit.testing.doubles.clock import FakeClock
from airflow_batchkit.testing.doubles.connections import FakeConnections, NoConnections
from airflow_batchkit.testing.doubles.dead_letters import LetterBox, MemoryDeadLetters
from airflow_batchkit.testing.doubles.sink import MemorySink, MemoryTarget, Published
from airflow_batchkit.testing.doubles.source import MemorySource, ReadLog, made_up_records
from airflow_batchkit.testing.doubles.store import MemoryStore

__all__ = [
    "FakeClock",
    "FakeConnections",
    "LetterBox",
    "MemoryDeadLetters",
    "MemorySink",
    "MemorySource",
    "MemoryStore",
    "MemoryTarget",
    "NoConnections",
    "Published",
    "ReadLog",
    "made_up_records",
]
