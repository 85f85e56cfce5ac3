"""The owner record beside an output, kept by conditional writes; the engine's ``owner`` has its rules."""

from __future__ import annotations

import hashlib
import socket
from typing import TYPE_CHECKING

import msgspec

from airflow_batchkit.connectors.object_storage.staging import FOLDER
from airflow_batchkit.connectors.object_storage.store import (
    SHA256,
    Condition,
    ConflictError,
    MissingObjectError,
)
from airflow_batchkit.connectors.patience import patiently
from airflow_batchkit.engine import owner
from airflow_batchkit.engine.exceptions import SupersededError, TransientError, UsageError
from airflow_batchkit.engine.failpoints import effect

if TYPE_CHECKING:
    from airflow_batchkit.connectors.object_storage.store import ObjectStore
    from airflow_batchkit.engine.owner import OwnerRecord
    from airflow_batchkit.engine.sink import Leg

_MAX_BYTES = 64 * 1024
_CLAIM_TRIES = 5


class Ownership:
    """One leg's hold on an output.

    :param store: where the output lies.
    :param leg: the leg.
    :param root: prefix of all keys: empty, or a folder with a slash at its end.
    """

    def __init__(self, store: ObjectStore, leg: Leg, *, root: str) -> None:
        self._store = store
        self._leg = leg
        self._key = f"{root}{FOLDER}/owner.json"
        self._target = f"{store.location.url}/{root}".rstrip("/")
        self._record: OwnerRecord | None = None
        self._etag = ""
        self._tidy = False

    @property
    def untidy(self) -> tuple[str, ...]:
        """Generations of which objects may still lie here besides the one that is being published."""
        return () if self._record is None else self._record.untidy

    def claim(self) -> None:
        """Take the output for this leg.

        :raises TargetHeldError: another run is alive.
        :raises UsageError: it belongs to another job.
        """
        for _ in range(_CLAIM_TRIES):
            found, etag = patiently(self._read)
            now = self._store.now()
            owner.refuse(
                found,
                self._leg,
                now=now,
                target=self._target,
                record_place=f"{self._store.location.url}/{self._key}",
            )
            try:
                self._write(
                    owner.claimed(found, self._leg, now=now, host=socket.gethostname()), etag, "claim"
                )
            except ConflictError:
                continue
            return
        raise TransientError(f"{self._target}: several legs want it at once; may work when tried again")

    def renew_if_due(self, *, for_seconds: float = 0.0) -> None:
        """Renew the lease when little is left of it.

        :param for_seconds: a planned pause that it has to last for.
        :raises SupersededError: another leg owns the output now.
        """
        record = self._held()
        if owner.renewal_due(record, now=self._store.now(), for_seconds=for_seconds):
            self._replace(owner.renewed(record, now=self._store.now(), for_seconds=for_seconds), "renew")

    def confirm(self, *, untidy: str | None = None) -> None:
        """Make sure, at the place itself, that the output is still ours, with a fresh lease.

        :param untidy: a generation whose objects will have to be removed; kept in the record until they are.
        :raises SupersededError: another leg owns the output now.
        """
        record = owner.renewed(self._held(), now=self._store.now())
        if untidy is not None and untidy not in (*record.untidy, record.generation):
            record = msgspec.structs.replace(record, untidy=(*record.untidy, untidy))
        self._replace(record, "confirm")

    def tidied(self) -> None:
        """Note that nothing of older generations is left: :meth:`release` writes it down."""
        self._tidy = True

    def release(self) -> None:
        """Give the output up, unless another leg has it."""
        if self._record is not None:
            self._replace(owner.released(self._record, tidy=self._tidy), "release")
            self._record = None

    def _held(self) -> OwnerRecord:
        if self._record is None:
            raise SupersededError(f"{self._target} is not owned by this leg ({self._leg.token})")
        return self._record

    def _replace(self, record: OwnerRecord, verb: str) -> None:
        try:
            self._write(record, self._etag, verb)
        except ConflictError as error:
            found, etag = patiently(self._read)
            if found is not None and found.token == self._leg.token and etag != self._etag:
                # Ours, but not as we know it: the answer to an earlier write did not reach us as it was.
                self._etag = etag or ""
                self._replace(record, verb)
                return
            self._record = None
            by = (
                "nobody: its owner record was removed"
                if found is None
                else f"leg {found.token} of run {found.run}"
            )
            raise SupersededError(
                f"{self._target} is owned by {by}; this leg ({self._leg.token}) stops here"
            ) from error

    def _write(self, record: OwnerRecord, etag: str | None, verb: str) -> None:
        content = msgspec.json.encode(record)
        metadata = {SHA256: hashlib.sha256(content).hexdigest()}
        with effect(f"sink.{verb}"):
            self._etag = patiently(
                lambda: self._store.put(self._key, content, metadata=metadata, condition=Condition(etag=etag))
            )
        self._record = record

    def _read(self) -> tuple[OwnerRecord | None, str | None]:
        try:
            with self._store.read(self._key) as reading:
                content = reading.file.read(_MAX_BYTES)
                return msgspec.json.decode(content, type=owner.OwnerRecord), reading.etag
        except MissingObjectError:
            return None, None
        except msgspec.DecodeError as error:
            raise UsageError(
                f"{self._store.location.url}/{self._key} is no owner record ({error}); "
                "remove it, or choose another prefix"
            ) from error
