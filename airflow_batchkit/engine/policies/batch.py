"""How large a batch may become."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value


@dataclass(frozen=True, kw_only=True, repr=False)
class BatchPolicy(Value):
    """A batch closes at whichever limit comes first; both are asked *before* a record is added.

    A single record larger than ``max_bytes`` makes a batch of its own.

    :param max_records: records in a batch. Default: what the sink thinks best (object storage: no limit).
    :param max_bytes: bytes in a batch, before compression. Default: what the sink thinks best
        (object storage: 16 MiB).
    """

    max_records: int | None = None
    max_bytes: int | None = None

    @override
    def check(self) -> None:
        """Refuse limits below one.

        :raises UsageError: a limit is not a positive whole number.
        """
        for name, limit in (("max_records", self.max_records), ("max_bytes", self.max_bytes)):
            if limit is not None and (type(limit) is not int or limit < 1):
                message = f"BatchPolicy({name}={limit!r}): must be a whole number, 1 or more"
                raise UsageError(message)
