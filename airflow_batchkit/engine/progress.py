"""How far a run is, told honestly: recent rate, known or unknown totals, waiting apart from working."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_batchkit.engine.types import Total

_RECENT_SECONDS = 30.0
_MIN_FRACTION_FOR_ETA = 0.001  # as gh-ost: below 0.1 % an ETA is noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A moment of a run.

    :param batches: batches that are durable.
    :param batches_total: how many there will be, by the records per batch so far; None when unknown.
    :param read: records behind the cursor.
    :param total: what the source expects to deliver, None when it does not know.
    :param records_per_second: over about the last 30 seconds, waiting included: the ETA comes from it.
    :param dead_lettered: records given up and kept.
    :param eta_seconds: None when unknown.
    :param active_seconds: all legs together.
    :param throttled_seconds: of which waiting, in this leg.
    :param bytes_read: over all legs.
    :param cursor: where the run stands, for people.
    :param status: ``running``, ``waiting``, ``publishing``, ``completed`` or ``failed``.
    :param unit: what is counted in ``batches``, for people.
    """

    batches: int
    batches_total: int | None
    read: int
    total: Total | None
    records_per_second: float
    dead_lettered: int
    eta_seconds: float | None
    active_seconds: float
    throttled_seconds: float
    bytes_read: int
    cursor: str
    status: str = "running"
    unit: str = "batch"

    def line(self) -> str:
        """Return one log line: ``batch 23/50 · 230,000/500,000 records (46%) · 38,211 records/s · …``."""
        batch = f"{self.unit} {self.batches:,}"
        if self.batches_total is not None:
            batch += f"/{self.batches_total:,}"
        parts = [batch, self._records(), f"{self.records_per_second:,.0f} records/s"]
        if self.dead_lettered:
            parts.append(f"{self.dead_lettered:,} dead-lettered")
        if self.throttled_seconds >= 1:
            parts.append(f"throttled {clock_text(self.throttled_seconds)}")
        if self.eta_seconds is not None:
            parts.append(f"ETA {clock_text(self.eta_seconds)}")
        return " · ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON types, with the line in it."""
        values = asdict(self)
        values["total"] = None if self.total is None else self.total.records
        values["line"] = self.line()
        return values

    def _records(self) -> str:
        if self.total is None:
            return f"{self.read:,} records (total unknown)"
        about = "" if self.total.exact else "~"
        if self.read > self.total.records:
            return f"{self.read:,} records (more than the {about}{self.total.records:,} expected)"
        share = 100 if self.total.records == 0 else math.floor(100 * self.read / self.total.records)
        return f"{self.read:,}/{about}{self.total.records:,} records ({share}%)"


def clock_text(seconds: float) -> str:
    """Write a duration as ``0:07`` or ``3:12:45``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Meter:
    """Measures the recent rate; remembers a bounded number of moments.

    :param already_read: records that earlier legs read.
    """

    def __init__(self, already_read: int) -> None:
        self._moments: deque[tuple[float, int]] = deque([(0.0, already_read)], maxlen=512)

    def rate(self, seconds: float, read: int) -> float:
        """Note how many records were read after so many seconds; return records per second of late."""
        self._moments.append((seconds, read))
        while len(self._moments) > 2 and seconds - self._moments[1][0] >= _RECENT_SECONDS:  # noqa: PLR2004  # two moments make a rate
            self._moments.popleft()
        then, read_then = self._moments[0]
        elapsed = seconds - then
        return (read - read_then) / elapsed if elapsed > 0 else 0.0


def eta(total: Total | None, read: int, rate: float) -> float | None:
    """Return the seconds left at this rate, None where nobody can know."""
    if total is None or rate <= 0 or not 0 < read <= total.records:
        return None
    if read / total.records < _MIN_FRACTION_FOR_ETA:
        return None
    return (total.records - read) / rate
