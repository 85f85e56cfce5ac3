"""How fast a run may go."""

from __future__ import annotations

import math
from dataclasses import dataclass

from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value


@dataclass(frozen=True, kw_only=True, repr=False)
class RateLimit(Value):
    """Holds the run to a rate, smoothly: never more than one second's worth at once.

    :param records_per_second: records read. Default: no limit.
    :param bytes_per_second: bytes read. Default: no limit.
    """

    records_per_second: float | None = None
    bytes_per_second: float | None = None

    @override
    def check(self) -> None:
        """Refuse rates that are not above zero.

        :raises UsageError: which rate.
        """
        for name, rate in (
            ("records_per_second", self.records_per_second),
            ("bytes_per_second", self.bytes_per_second),
        ):
            if rate is not None and not 0 < rate < math.inf:
                message = f"RateLimit({name}={rate}): must be a number above 0"
                raise UsageError(message)
