"""Where a partial run begins: at a date, or after a sequence number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_batchkit.engine.exceptions import UsageError


@dataclass(frozen=True, slots=True)
class Start:
    """What ``start_at`` means.

    :param cursor: in every shard, begin after this.
    :param filters: read only what also matches these.
    """

    cursor: Mapping[str, Any] | None = None
    filters: tuple[Mapping[str, Any], ...] = ()

    def limited(self, query: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a query with the filters added."""
        return {"bool": {"filter": [*self.filters, query]}} if self.filters else query


def parse_start(start_at: str | None, date_field: str | None) -> Start:
    """Read ``start_at`` as a user writes it.

    :param start_at: a cursor (``{"seq_no": 1000}``) or an ISO 8601 date, in UTC where it has no zone.
    :param date_field: the field that dates are compared with.
    :raises UsageError: it is neither, or a date without a field to compare it with.
    """
    if start_at is None:
        return Start()
    if start_at.lstrip().startswith("{"):
        return Start(cursor=_cursor(start_at))
    if date_field is None:
        raise UsageError(
            f"start_at={start_at!r}: to start at a date, set the source's date_field; else give a cursor "
            'such as {"seq_no": 1000}'
        )
    try:
        moment = datetime.fromisoformat(start_at)
    except ValueError as error:
        raise UsageError(f"start_at={start_at!r}: must be an ISO 8601 date, or a cursor") from error
    moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Start(filters=({"range": {date_field: {"gte": text, "format": "strict_date_time"}}},))


def _cursor(text: str) -> dict[str, Any]:
    try:
        seq_no = json.loads(text)["seq_no"]
    except (ValueError, KeyError) as error:
        raise UsageError(f'start_at={text!r}: a cursor must look like {{"seq_no": 1000}}') from error
    if not isinstance(seq_no, int) or seq_no < 0:
        raise UsageError(f"start_at={text!r}: seq_no must be a whole number, 0 or more")
    return {"seq_no": seq_no}
