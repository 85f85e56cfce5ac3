"""What is selected for a page, and how a key's text becomes a value and text again."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from airflow_batchkit.connectors.sql.dialect import Column
from airflow_batchkit.connectors.sql.keys import from_cursor, to_cursor
from airflow_batchkit.connectors.sql.postgres.catalog import quoted
from airflow_batchkit.connectors.sql.postgres.rows import JsonRows, as_parameter


def column(name: str, base: str) -> Column:
    """Make a column."""
    return Column(name=name, type=base, nullable=True, base=base)


def rows(*key: Column) -> JsonRows:
    """Make the format of rows with these key columns."""
    return JsonRows(key, key, qualified=lambda column: f"t.{quoted(column.name)}", quote=quoted)


@pytest.mark.parametrize(
    ("base", "text", "value"),
    [
        ("bigint", "9007199254740993", 9007199254740993),
        ("numeric", "1.10", Decimal("1.10")),
        ("numeric", "NaN", "NaN"),
        ("numeric", "-Infinity", "-Infinity"),
        ("double precision", "0.1", 0.1),
        ("double precision", "Infinity", "Infinity"),
        ("date", "2026-01-02", date(2026, 1, 2)),
        ("date", "0044-03-15 BC", "0044-03-15 BC"),
        (
            "timestamp with time zone",
            "2026-01-02 03:04:05.678+00",
            datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        ),
        ("timestamp with time zone", "infinity", "infinity"),
        ("bytea", "\\x00ff", b"\x00\xff"),
        ("text", "7", "7"),
        ("boolean", "true", "true"),
        ("integer", None, None),
    ],
)
def test_key_values_are_what_the_client_can_compare(base: str, text: str | None, value: Any) -> None:
    """Numbers and instants are read as such where Python has them, anything else stays the server's text."""
    (read,) = rows(column("k", base)).key([b"{}", text])
    assert read == value
    assert type(read) is type(value)
    (again,) = from_cursor(msgspec.json.decode(msgspec.json.encode(to_cursor((read,)))))
    assert again == value
    if value is not None and not isinstance(value, datetime):
        assert as_parameter(again) == text


def test_instant_is_sent_as_iso_text() -> None:
    """PostgreSQL reads an instant back from ISO 8601 with its offset."""
    assert as_parameter(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02T03:04:05+00:00"


def test_json_is_made_around_the_limited_rows() -> None:
    """The inner query knows the table's names, the outer one only ours; bytea is encoded on the way."""
    made = rows(column('o"x', "bytea"))
    assert made.selected == ('translate(encode(t."o""x", \'base64\'), E\'\\n\', \'\'), t."o""x"::text')
    assert made.page("SELECT …") == (
        'SELECT (SELECT row_to_json(r.*) FROM (SELECT c0 AS "o""x") AS r), c1 '
        "FROM (SELECT …) AS page (c0, c1)"
    )


def test_rows_are_one_line() -> None:
    """A json value that was written on several lines is put on one, its literals kept."""
    made = rows(column("k", "integer"))
    assert made.body([b'{"k":1,"j":{\n "n": 1e400}}', "1"]) == b'{"k":1,"j":{"n":1e400}}'
    assert made.body([b'{"k":1, "j":2}', "1"]) == b'{"k":1, "j":2}'
