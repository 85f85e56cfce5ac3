"""A query as the user wrote it: what is refused in it, and what ``now`` becomes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow_batchkit.connectors.elasticsearch.date_math import resolve, uses_now
from airflow_batchkit.engine.exceptions import UsageError

_ROUND_UP = {"gt": True, "lte": True, "gte": False, "lt": False}
_QUERY_TEXTS = ("query_string", "simple_query_string")
_NOW_IN_TEXT = re.compile(r"\bnow\b")
_CLOCK_IN_SCRIPT = re.compile(r"\.now\s*\(|currentTimeMillis|nanoTime|new\s+Date\s*\(\s*\)")


def canonical(query: Any) -> str:
    """Return a query as JSON text that does not depend on the order of keys.

    :raises UsageError: it holds something that JSON does not know.
    """
    try:
        return json.dumps(query, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the query is not JSON: {error}") from error


def check_query(query: Mapping[str, Any] | None) -> None:
    """Refuse a query that would match everything because something in it came out empty.

    :raises UsageError: where it is empty, and that ``query=None`` is how to ask for everything.
    """
    if query is None:
        return
    if not isinstance(query, Mapping):
        raise UsageError(f'query must be the body of "query" as a dict, not {type(query).__name__}')
    canonical(query)
    if _is_empty(query):
        raise UsageError(
            "the query is empty (did a template render to nothing?) and would match every document; "
            "leave query out where that is meant"
        )
    _check_ranges(query)


def resolved(query: Mapping[str, Any] | None, now: datetime) -> dict[str, Any]:
    """Return the query with date math turned into absolute times; ``match_all`` where there is none.

    :param now: the run's instant.
    :raises UsageError: ``now`` stands where it cannot be resolved.
    """
    return {"match_all": {}} if query is None else _walk(query, now, ())


def _is_empty(query: Mapping[str, Any]) -> bool:
    if not query:
        return True
    clauses = query.get("bool") if len(query) == 1 else None
    return isinstance(clauses, Mapping) and not any(
        clauses.get(name) for name in ("must", "filter", "should", "must_not")
    )


def _check_ranges(node: Any) -> None:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "range" and isinstance(value, Mapping):
                for name, bounds in value.items():
                    _check_bounds(name, bounds)
            _check_ranges(value)
    elif isinstance(node, Sequence) and not isinstance(node, str | bytes):
        for item in node:
            _check_ranges(item)


def _check_bounds(name: str, bounds: Any) -> None:
    if not isinstance(bounds, Mapping):
        return
    given = {key: bounds[key] for key in (*_ROUND_UP, "from", "to") if key in bounds}
    for key, bound in given.items():
        if bound is None or bound == "":
            raise UsageError(
                f"range on {name!r}: {key} is empty (did a template render to nothing?) and limits nothing; "
                "leave it out where that is meant"
            )
    if not given:
        raise UsageError(f"range on {name!r} has no bound: give gte, gt, lte or lt")


def _walk(node: Any, now: datetime, path: tuple[str, ...]) -> Any:
    if isinstance(node, Mapping):
        return {key: _entry(key, value, now, (*path, key)) for key, value in node.items()}
    if isinstance(node, str):
        _check_text(node, path)
        return node
    if isinstance(node, Sequence) and not isinstance(node, bytes):
        return [_walk(item, now, path) for item in node]
    return node


def _entry(key: str, value: Any, now: datetime, path: tuple[str, ...]) -> Any:
    if key == "wrapper":
        raise UsageError("a wrapper query hides whether it uses now: write the query out")
    if key == "range" and isinstance(value, Mapping):
        return {
            name: _bounds(bounds, now, (*path, name)) if isinstance(bounds, Mapping) else bounds
            for name, bounds in value.items()
        }
    return _walk(value, now, path)


def _bounds(bounds: Mapping[str, Any], now: datetime, path: tuple[str, ...]) -> dict[str, Any]:
    made = dict(bounds)
    limits = [key for key in (*_ROUND_UP, "from", "to") if key in bounds]
    dynamic = [key for key in limits if isinstance(bounds[key], str) and uses_now(bounds[key])]
    for key in dynamic:
        made[key] = resolve(
            bounds[key], now, round_up=_rounds_up(key, bounds), time_zone=bounds.get("time_zone")
        )
    # The field's own format may not read ISO 8601. One that reads it is added, unless a bound that stays as
    # it was written depends on a format that only the mapping knows.
    if dynamic and ("format" in bounds or dynamic == limits):
        made["format"] = "||".join(["strict_date_time", *([bounds["format"]] if "format" in bounds else [])])
    return {key: value if key in limits else _walk(value, now, (*path, key)) for key, value in made.items()}


def _rounds_up(key: str, bounds: Mapping[str, Any]) -> bool:
    if key == "from":
        return not bounds.get("include_lower", True)
    if key == "to":
        return bool(bounds.get("include_upper", True))
    return _ROUND_UP[key]


def _check_text(text: str, path: tuple[str, ...]) -> None:
    """Refuse text that the server would read a clock for."""
    if "script" in path or "source" in path[-1:]:
        dynamic = _CLOCK_IN_SCRIPT.search(text) is not None
    elif any(name in path for name in _QUERY_TEXTS) and path[-1] == "query":
        dynamic = _NOW_IN_TEXT.search(text) is not None
    elif path[-1] == "origin":
        dynamic = uses_now(text)
    else:
        dynamic = uses_now(text) and text != "now"
    if dynamic:
        raise UsageError(
            f"the query uses now at {'.'.join(path)}, where it cannot be fixed to the run's one instant: "
            "use a templated bound instead, such as {{ data_interval_start }}"
        )
