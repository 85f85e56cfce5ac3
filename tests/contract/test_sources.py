"""Every source of the package passes the source contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.testing.contract import SourceContract
from airflow_batchkit.testing.doubles import MemorySource, made_up_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_batchkit.engine.source import Source
    from airflow_batchkit.engine.types import Record


class TestMemorySource(SourceContract):
    PARTITIONS: dict[str, list[Record]] = {
        "a": made_up_records(23, prefix="a-"),
        "b": made_up_records(1, prefix="b-"),
        "c": [],
    }

    @pytest.fixture(params=["records", "windows"])
    def source(self, request: pytest.FixtureRequest) -> Source:
        return MemorySource(partitions=self.PARTITIONS, style=request.param, page_records=4, window_records=6)

    @pytest.fixture
    def expected(self) -> Sequence[tuple[str, bytes]]:
        return [(record.id, bytes(record.body)) for records in self.PARTITIONS.values() for record in records]

    @pytest.fixture
    def refused(self) -> Sequence[Source]:
        return ()
