"""A user's condition is looked at before it becomes part of a query."""

from __future__ import annotations

import pytest

from airflow_batchkit.connectors.sql.clauses import check_where
from airflow_batchkit.engine.exceptions import UsageError


@pytest.mark.parametrize(
    "where",
    [
        "day = '2026-01-01'",
        "status IN ('now', 'later') AND (a = 1 OR b = 2)",
        "note = 'it''s; -- not a comment (' AND \"odd ) column\" = 1",
        "known_at < '2026-01-01' AND nowhere = 1 AND current_time_zone = 2",
        "datetime(created_at) < datetime('2026-01-01')",
        "strftime('%Y', created_at) = '2026'",
        "[current_date] = 1 AND `now()` = 2",
        "name = 'CURRENT_DATE'",
        "state = 'today'",
    ],
)
def test_plain_conditions_pass(where: str) -> None:
    """Conditions that mean the same on each page are left alone, whatever their literals and names hold."""
    check_where(where)


@pytest.mark.parametrize(
    "where",
    [
        "created_at < now()",
        "created_at < NOW ( )",
        "day = CURRENT_DATE",
        "at < current_timestamp - 1",
        "at < getdate()",
        "at < date('now')",
        "at < datetime('NOW', '-1 day')",
        "at < date('now', 'start of month')",
        "at < julianday()",
        "strftime('%s') > at",
        "strftime('%s', 'now') > at",
        "at < 'now'::timestamp",
        "day = 'today'::date",
        "day = date 'yesterday'",
        "at < LOCALTIME",
        "id = gen_random_uuid()",
        "random() < 0",
    ],
)
def test_what_changes_from_page_to_page_is_refused(where: str) -> None:
    """Rule 10: the clock and chance are refused, with the templated form to write instead."""
    with pytest.raises(UsageError, match=r"something else on each page.*\{\{ data_interval_end \}\}"):
        check_where(where)


@pytest.mark.parametrize("where", ["", "  \n"])
def test_empty_condition_is_refused(where: str) -> None:
    """A template that renders to nothing must not read the whole table."""
    with pytest.raises(UsageError, match="condition is empty"):
        check_where(where)


@pytest.mark.parametrize(
    "where",
    [
        "a = 1) OR (1 = 1",
        "(a = 1",
        "a = 1)",
        "a = 1; DROP TABLE orders",
        "a = 1 -- and the rest",
        "a = 1 /* and the rest",
        "a = 'open",
        'a = "open',
    ],
)
def test_condition_cannot_leave_its_place(where: str) -> None:
    """What would swallow or outvote the key's predicate is refused: it would lose or repeat rows."""
    with pytest.raises(UsageError, match="must be one condition"):
        check_where(where)
