"""Every sink of the package passes the contracts that it claims to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.testing.contract import StagedOutputContract
from airflow_batchkit.testing.doubles import MemorySink, MemoryTarget

if TYPE_CHECKING:
    from airflow_batchkit.testing.contract.sink import MakeSink, Visible


class TestMemorySink(StagedOutputContract):
    @pytest.fixture
    def target(self) -> MemoryTarget:
        return MemoryTarget()

    @pytest.fixture
    def make_sink(self, target: MemoryTarget) -> MakeSink:
        return lambda: MemorySink(target=target)

    @pytest.fixture
    def visible(self, target: MemoryTarget) -> Visible:
        return lambda: target.published.ids if target.published else []
