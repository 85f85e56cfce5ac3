"""Every sink of the package passes the contracts that it claims to keep."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from airflow_batchkit.connectors.callable import CallableSink
from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.testing.contract import SinkContract, StagedOutputContract
from airflow_batchkit.testing.doubles import MemorySink, MemoryTarget

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_batchkit.testing.contract.sink import MakeSink, Visible


class TestMemorySink(StagedOutputContract):
    @pytest.fixture
    def target(self) -> MemoryTarget:
        return MemoryTarget()

    @pytest.fixture
    @override
    def make_sink(self, target: MemoryTarget) -> MakeSink:
        return lambda: MemorySink(target=target)

    @pytest.fixture
    @override
    def visible(self, target: MemoryTarget) -> Visible:
        return lambda: target.published.ids if target.published else []


class Ledger:
    """A system behind a function: it keeps what it is given, once per idempotency key."""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}

    def enter(self, document: dict[str, Any], *, idempotency_key: str) -> None:
        self.entries.setdefault(idempotency_key, document)

    def enter_all(self, documents: list[dict[str, Any]], *, idempotency_keys: list[str]) -> None:
        for document, key in zip(documents, idempotency_keys, strict=True):
            self.enter(document, idempotency_key=key)


class TestCallableSink(SinkContract):
    @pytest.fixture
    def ledger(self) -> Ledger:
        return Ledger()

    @pytest.fixture(params=["record", "batch"])
    @override
    def make_sink(self, ledger: Ledger, request: pytest.FixtureRequest) -> MakeSink:
        if request.param == "record":
            return lambda: CallableSink(function=ledger.enter)
        return lambda: CallableSink(function=ledger.enter_all, per="batch")

    @pytest.fixture
    @override
    def visible(self, ledger: Ledger) -> Visible:
        return lambda: [str(document["id"]) for document in ledger.entries.values()]


class TestObjectStorageSinkOnFiles(StagedOutputContract):
    @pytest.fixture(params=["gzip", None])
    @override
    def make_sink(self, tmp_path: Path, request: pytest.FixtureRequest) -> MakeSink:
        return lambda: ObjectStorageSink(url=f"file://{tmp_path}/lake/orders", compression=request.param)

    @pytest.fixture
    @override
    def visible(self, tmp_path: Path) -> Visible:
        return lambda: ids_by_the_manifest(tmp_path / "lake" / "orders")


def ids_by_the_manifest(folder: Path) -> list[str]:
    """Read the output as its readers should: the parts that the manifest names."""
    manifest = folder / "manifest.json"
    if not manifest.exists():
        return []
    lines: list[bytes] = []
    for part in json.loads(manifest.read_bytes())["parts"]:
        body = (folder / part["key"]).read_bytes()
        lines += (gzip.decompress(body) if part["key"].endswith(".gz") else body).splitlines()
    return [str(json.loads(line)["_id"]) for line in lines]
