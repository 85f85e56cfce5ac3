"""The tables of ``docs/errors.md``, made of the connectors' own; run as a module, it writes them there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from airflow_batchkit.connectors.elasticsearch import errors as elasticsearch
from airflow_batchkit.connectors.object_storage import errors as object_storage
from airflow_batchkit.connectors.sql import errors as sql
from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    BatchTooLargeError,
    PermanentError,
    PushbackError,
    RecordError,
    TransientError,
    UsageError,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
BEGIN, END = "<!-- made from the code: begin -->", "<!-- made from the code: end -->"
# The first one that fits: a pushback is transient too.
CLASSES = {
    PushbackError: "pushback",
    TransientError: "transient",
    RecordError: "record",
    BatchTooLargeError: "size",
    UsageError: "usage",
    PermanentError: "permanent",
}


def tables() -> str:
    """Return all tables as Markdown."""
    parts = [
        *_kinds("Elasticsearch, by type", elasticsearch.BY_TYPE),
        *_kinds("Elasticsearch, by HTTP status", elasticsearch.BY_STATUS),
        *_advised("S3, by error code", object_storage._BY_CODE),
        *_advised("S3, by HTTP status", object_storage._BY_STATUS),
        *_advised("PostgreSQL, by SQLSTATE", sql._POSTGRES),
        *_advised("SQLite, by result code", sql._SQLITE),
    ]
    return "\n".join(parts)


def page() -> str:
    """Return the page as it should be."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def class_of(kind: type[BatchkitError]) -> str:
    """Return what the docs call a class of errors."""
    return next(name for known, name in CLASSES.items() if issubclass(kind, known))


def _kinds(
    title: str, table: Mapping[str, type[BatchkitError]] | Mapping[int, type[BatchkitError]]
) -> Iterator[str]:
    yield from (f"### {title}", "", "| class | errors |", "|---|---|")
    rows: dict[str, list[str]] = {}
    for error, kind in table.items():
        rows.setdefault(class_of(kind), []).append(f"`{error}`")
    for name in CLASSES.values():
        if name in rows:
            yield f"| {name} | {', '.join(rows[name])} |"
    yield ""


def _advised(
    title: str,
    table: Mapping[str, tuple[type[BatchkitError], str]] | Mapping[int, tuple[type[BatchkitError], str]],
) -> Iterator[str]:
    yield from (f"### {title}", "", "| errors | class | what the message says |", "|---|---|---|")
    rows: dict[tuple[str, str], list[str]] = {}
    for error, (kind, advice) in table.items():
        rows.setdefault((class_of(kind), advice), []).append(
            f"`{int(error) if isinstance(error, int) else error}`"
        )
    for (name, advice), errors in rows.items():
        yield f"| {', '.join(sorted(errors))} | {name} | {advice} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page())
