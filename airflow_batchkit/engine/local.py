"""LOCAL mode: everything runs but the writing. The real sink and dead-letter place are not even opened."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from typing_extensions import override

from airflow_batchkit.engine.sink import BatchKey, BatchWriter, Leg, OpenSink, Publication
from airflow_batchkit.engine.types import Record, WriteResult

if TYPE_CHECKING:
    from airflow_batchkit.engine.sink import Sink

_NAMED_PER_BATCH = 3


class LocalWriter(BatchWriter):
    """Counts what would have been written, and names the first few."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._records = 0

    @override
    def add(self, records: Sequence[Record]) -> None:
        for record in records[: max(0, _NAMED_PER_BATCH - self._records)]:
            self._log.info("write of record %s skipped because we are in LOCAL mode", ascii(record.id))
        self._records += len(records)

    @override
    def write(self) -> WriteResult:
        if self._records > _NAMED_PER_BATCH:
            self._log.info(
                "write of %s more records of this batch skipped because we are in LOCAL mode",
                f"{self._records - _NAMED_PER_BATCH:,}",
            )
        return WriteResult(skipped=self._records)


class LocalSink(OpenSink):
    """Stands in for the sink in LOCAL mode.

    :param sink: the settings, for the fingerprint only.
    :param log: where to say what was skipped.
    """

    def __init__(self, sink: Sink, log: logging.Logger) -> None:
        self._settings = sink.serialize()
        self._log = log

    @property
    @override
    def fingerprints(self) -> Mapping[str, str]:
        text = msgspec.json.encode(self._settings, order="sorted")
        return {"target": hashlib.sha256(text).hexdigest()[:12]}

    @property
    @override
    def environment(self) -> Mapping[str, Any]:
        return {"mode": "LOCAL: nothing is written"}

    @property
    @override
    def state(self) -> Mapping[str, Any]:
        return {}

    @override
    def start(self, leg: Leg) -> None:
        self._log.info("claim of the target skipped because we are in LOCAL mode")

    @override
    def begin(self, key: BatchKey) -> BatchWriter:
        return LocalWriter(self._log)

    @override
    def renew(self, *, for_seconds: float = 0.0) -> None:
        """Nothing is held."""

    @override
    def publish(self, publication: Publication) -> Mapping[str, Any]:
        self._log.info("publish skipped because we are in LOCAL mode")
        return {}

    @override
    def release(self) -> None:
        """Nothing is held."""

    @override
    def close(self) -> None:
        """Nothing is open."""
