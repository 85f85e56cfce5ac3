"""A Python iterable as a source: bounded pages, and no silent loss when it changes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.engine.exceptions import OrderError, PermanentError, TransientError, UsageError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.engine.types import Cursor, Sizing, UnreadableRecord
from airflow_batchkit.testing.doubles import NoConnections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SIZING = Sizing(batch_records=None, batch_bytes=1024, page_records=2)


def context(start_at: str | None = None) -> OpenContext:
    """Make what the source is opened with."""
    return OpenContext(
        connections=NoConnections(),
        timeouts=Timeouts(),
        now=datetime(2026, 1, 1, tzinfo=UTC),
        start_at=start_at,
    )


def ids(source: IterableSource, after: Cursor | None = None) -> list[str]:
    """Read everything after a cursor."""
    pages = source.open(context()).read(0, after, SIZING)
    return [record.id for page in pages for record in page.records]


def customers(*names: str) -> Callable[[], list[dict[str, Any]]]:
    """Make a function that returns customers."""

    def read() -> list[dict[str, Any]]:
        return [{"name": name} for name in names]

    return read


def cursor_after(source: IterableSource, records: int) -> Cursor:
    """Return the cursor behind so many records."""
    pages = source.open(context()).read(0, None, Sizing(batch_records=None, batch_bytes=1024))
    page = next(iter(pages))
    assert page.cursor_at is not None
    return page.cursor_at(records - 1)


def test_pages_end_at_their_bytes_or_records() -> None:
    """A page takes no record more once it has its bytes, and never more records than allowed."""
    source = IterableSource(records=lambda: [{"text": "x" * 100} for _ in range(5)])
    by_bytes = Sizing(batch_records=None, batch_bytes=1024, page_bytes=150)
    lengths = [len(page.records) for page in source.open(context()).read(0, None, by_bytes)]
    assert lengths == [2, 2, 1]
    lengths = [len(page.records) for page in source.open(context()).read(0, None, SIZING)]
    assert lengths == [2, 2, 1]


def test_iterable_is_not_read_ahead() -> None:
    """Only the records of the page that is asked for are taken from the iterable."""
    taken: list[int] = []

    def endless() -> Iterator[dict[str, Any]]:
        while True:
            taken.append(len(taken))
            yield {"id": len(taken)}

    reader = iter(IterableSource(records=endless).open(context()).read(0, None, SIZING))
    next(reader)
    assert len(taken) == 2


@pytest.mark.parametrize(
    "changed",
    [
        customers("anna", "carl", "dora"),
        customers("bert", "anna", "carl"),
        customers("anna"),
        customers(),
    ],
    ids=["one gone", "other order", "shorter", "empty"],
)
@pytest.mark.parametrize("key", ["name", None])
def test_changed_iterable_is_noticed(changed: Callable[[], Any], key: str | None) -> None:
    """Where the records before the cursor are others now, resuming fails instead of losing some."""
    cursor = cursor_after(IterableSource(records=customers("anna", "bert", "carl"), key=key), 2)
    with pytest.raises(OrderError, match=r"first 2 records of .* are not those that were done"):
        ids(IterableSource(records=changed, key=key), cursor)


def test_changes_behind_the_cursor_are_read() -> None:
    """What comes after the cursor may be new."""
    cursor = cursor_after(IterableSource(records=customers("anna", "bert", "carl"), key="name"), 2)
    assert ids(IterableSource(records=customers("anna", "bert", "dora"), key="name"), cursor) == ["dora"]


def test_same_id_twice_in_a_row_fails() -> None:
    """Two records with one id in a row would overwrite each other: also across the end of a page."""
    with pytest.raises(OrderError, match="'bert' twice in a row"):
        ids(IterableSource(records=customers("anna", "bert", "bert"), key="name"))


def test_start_at_leaves_records_out() -> None:
    """A partial run begins behind a number of records, and counts the rest."""
    opened = IterableSource(records=customers("anna", "bert", "carl"), key="name").open(context("2"))
    assert [record.id for page in opened.read(0, None, SIZING) for record in page.records] == ["carl"]
    assert opened.total is not None
    assert opened.total.records == 1


@pytest.mark.parametrize("start_at", ["two", "-1", "1.5", ""])
def test_start_at_must_be_a_number(start_at: str) -> None:
    """Anything else is refused when the source is opened."""
    with pytest.raises(UsageError, match="number of records to leave out"):
        IterableSource(records=customers("anna")).open(context(start_at))


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (["anna"], "record 1 of .* is a str, not a dict"),
        ([{"name": "anna"}, {"nam": "bert"}], "record 2 of .* has no field 'name'"),
        ([{"name": None}], "record 1 of .* has no field 'name'"),
        ([{"name": "anna"}, {"name": "\ud800"}], "record 2 of .* cannot be named: its field 'name'"),
        ([{"name": 10**5000}], "record 1 of .* cannot be named: its field 'name'"),
    ],
)
def test_record_without_a_name_is_told_by_its_number(records: Iterable[Any], message: str) -> None:
    """A record that cannot be named fails the run with its number, not its content."""
    with pytest.raises(PermanentError, match=message):
        ids(IterableSource(records=lambda: records, key="name"))


@pytest.mark.parametrize("key", ["name", None])
def test_record_without_an_exact_form_is_given_up_alone(key: str | None) -> None:
    """It is named, with what can be kept of it; a resumed run passes over it, whatever its text is now."""
    source = IterableSource(
        records=lambda: [
            {"name": "anna"},
            {"name": "bert", "at": object(), "n": float("nan")},
            {"name": "carl"},
        ],
        key=key,
    )
    found = [record for page in source.open(context()).read(0, None, SIZING) for record in page.records]
    assert [isinstance(record, UnreadableRecord) for record in found] == [False, True, False]
    unreadable = found[1]
    assert isinstance(unreadable, UnreadableRecord)
    assert unreadable.id == ("2" if key is None else "bert")
    assert re.match(r"record 2 of .*: field 'at' cannot be written as JSON", unreadable.message)
    kept = msgspec.json.decode(unreadable.body)
    assert kept["readable"] == {"name": "bert"}
    assert kept["unreadable"]["n"] == {"python": "nan"}
    assert ids(source, cursor_after(source, 2)) == ["3" if key is None else "carl"]


@pytest.mark.parametrize("returned", [None, 5, "text", {"a": 1}])
def test_function_must_return_an_iterable_of_dicts(returned: Any) -> None:
    """What is no iterable of records is refused before anything is written."""
    with pytest.raises(UsageError, match="not an iterable of dicts"):
        IterableSource(records=lambda: returned).open(context())


@pytest.mark.parametrize("settings", [{"records": [1, 2]}, {"records": customers(), "key": ""}])
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    """A list instead of a function, or an empty key, is refused when the DAG is written."""
    with pytest.raises(UsageError, match="IterableSource"):
        IterableSource(**settings)


def test_closed_source_stops_an_endless_reader() -> None:
    """A reader that is in the middle of a page ends at its next record."""
    opened = IterableSource(records=customers("anna", "bert", "carl")).open(context())
    reader = iter(opened.read(0, None, SIZING))
    next(reader)
    opened.close()
    with pytest.raises(TransientError, match="closed"):
        next(reader)


def test_repr_names_the_function() -> None:
    """A DAG that is parsed twice has the same text: the function's name, not its address."""
    assert repr(IterableSource(records=ids, key="name")).endswith("test_iterable.ids', key='name')")  # type: ignore[arg-type]  # only its name matters
