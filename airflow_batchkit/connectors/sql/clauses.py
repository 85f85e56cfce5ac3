"""Looks at a user's ``where`` before it is put into a query."""

from __future__ import annotations

import re

from airflow_batchkit.engine.exceptions import UsageError

_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|\[[^\]]*\]")
_CLOCK = re.compile(
    r"\b(?:current_timestamp|current_date|current_time|localtimestamp|localtime|sysdate|systimestamp)\b"
    r"|\b(?:now|getdate|sysdatetime|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday)\s*\("
    r"|\b(?:random|rand|newid|gen_random_uuid)\s*\("
    r"|\b(?:date|time|datetime|julianday|unixepoch)\s*\(\s*\)",
    re.IGNORECASE,
)
# SQLite's clock hides in a literal, and in a strftime() without a second argument; PostgreSQL's in a literal.
_CLOCK_IN_LITERAL = re.compile(
    r"\b(?:date|time|datetime|julianday|unixepoch|strftime|timediff)\s*\([^()]*'\s*now\s*'"
    r"|\bstrftime\s*\(\s*'[^']*'\s*\)"
    r"|'\s*(?:now|today|tomorrow|yesterday)\s*'\s*::"
    r"|\b(?:date|timestamp|timestamptz)\s+'\s*(?:now|today|tomorrow|yesterday)\s*'",
    re.IGNORECASE,
)


def check_where(where: str) -> None:
    """Refuse a condition that is empty, leaves its place in the query, or means something else on each page.

    :raises UsageError: what is wrong, and what to write instead.
    """
    if not where.strip():
        raise UsageError(
            "SqlSource(where=''): the condition is empty (a variable that was missing?); "
            "leave it out to read the whole table"
        )
    bare = _QUOTED.sub("''", where)
    clock = _CLOCK.search(bare) or _CLOCK_IN_LITERAL.search(where)
    if clock:
        raise UsageError(
            f"SqlSource(where=…): {clock.group().strip()!r} is something else on each page; write the run's "
            "own time, for example created_at < '{{ data_interval_end }}'"
        )
    if not _stands_alone(bare):
        raise UsageError(
            "SqlSource(where=…): must be one condition, with balanced quotes and brackets and without ';' "
            "and comments"
        )


def _stands_alone(bare: str) -> bool:
    depth = 0
    for character in bare:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0 and not re.search(r";|--|/\*|(?<!')'(?!')|\"|`", bare)
