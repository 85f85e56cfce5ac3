"""The transform stage: what may come out of a user's function."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from airflow_batchkit.engine.dead_letters import DeadLetter, ReplayedRecord
from airflow_batchkit.engine.exceptions import PermanentError, RecordError, StoppedError, TransientError
from airflow_batchkit.engine.transform import TransformStage
from airflow_batchkit.engine.types import Record, UnreadableRecord

RECORD = Record("7", b'{"a": 1}', routing="r", index="i", version=3)


def bodies(transform: Callable[..., Any] | None, record: Record = RECORD) -> list[tuple[str, bytes]]:
    """Return what a transform makes of one record."""
    return [(made.id, bytes(made.body)) for made in TransformStage(transform)([record]).produced]


def test_without_a_transform_the_bytes_stay_as_they_are() -> None:
    """No decoding, no encoding: every literal and blank survives, and the record is the same object."""
    record = Record("1", b'{"big":12345678901234567890, "f":1.0,"e":1e400}')
    result = TransformStage(None)([record])

    assert result.produced[0] is record
    assert (result.transformed, result.filtered, result.rejected) == (1, 0, [])


def test_a_document_replaces_the_body_and_nothing_else() -> None:
    """Id, routing, index and version stay."""
    made = TransformStage(lambda document: {**document, "b": 2})([RECORD]).produced[0]

    assert made == Record("7", b'{"a":1,"b":2}', routing="r", index="i", version=3)


def test_the_document_may_be_changed_in_place() -> None:
    """A transform that returns the very dict that it was given is the usual one."""

    def in_place(document: dict[str, Any]) -> dict[str, Any]:
        document["a"] += 1
        return document

    assert bodies(in_place) == [("7", b'{"a":2}')]
    assert RECORD.body == b'{"a": 1}'


def test_none_and_nothing_filter() -> None:
    """None, an empty list and an empty generator all mean: on purpose, nothing."""

    def empty(_document: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from ()

    transforms: list[Callable[..., Any]] = [lambda _: None, lambda _: [], empty]
    for transform in transforms:
        result = TransformStage(transform)([RECORD])
        assert (result.transformed, result.filtered, result.produced) == (0, 1, [])


@pytest.mark.parametrize(
    "several",
    [
        lambda document: [document, {"b": 2}],
        lambda document: (one for one in (document, {"b": 2})),
        lambda document: (document, {"b": 2}),
    ],
)
def test_several_documents_get_derived_ids(several: Callable[..., Any]) -> None:
    """The same ids each time: <id>-1, <id>-2, in order; the record counts as one that was transformed."""
    result = TransformStage(several)([RECORD])

    assert [(made.id, made.body) for made in result.produced] == [("7-1", b'{"a":1}'), ("7-2", b'{"b":2}')]
    assert {made.routing for made in result.produced} == {"r"}
    assert result.transformed == 1


@pytest.mark.parametrize("count", [1, 2])
def test_one_document_in_a_list_is_named_as_several_are(count: int) -> None:
    """An id depends on the position alone, not on how many there happen to be."""
    assert bodies(lambda document: [document] * count)[0][0] == "7-1"


def test_a_function_of_two_gets_the_record_too() -> None:
    """Also as a method, a callable object or a partial; a second argument with a default is left alone."""

    class Tool:
        def method(self, document: dict[str, Any], record: Record) -> dict[str, Any]:
            return {**document, "id": record.id}

        def __call__(self, document: dict[str, Any], record: Record) -> dict[str, Any]:
            return {**document, "id": record.id}

    def three(bound: int, document: dict[str, Any], record: Record) -> dict[str, Any]:
        return {**document, "id": record.id if bound else ""}

    def default(document: dict[str, Any], factor: int = 2) -> dict[str, Any]:
        return {"a": document["a"] * factor}

    assert bodies(lambda document, record: {**document, "id": record.id}) == [("7", b'{"a":1,"id":"7"}')]
    assert bodies(Tool().method) == bodies(Tool()) == bodies(functools.partial(three, 1))
    assert bodies(Tool()) == [("7", b'{"a":1,"id":"7"}')]
    assert bodies(default) == [("7", b'{"a":2}')]


def test_a_function_without_a_signature_gets_the_document() -> None:
    """As some functions written in C are."""
    assert bodies(dict) == [("7", b'{"a":1}')]


def test_what_a_transform_raises_keeps_to_its_record() -> None:
    """That record is given up with type, message and stack trace; those around it go on."""

    def fails(document: dict[str, Any]) -> dict[str, Any]:
        if document["a"] == 2:
            raise KeyError("price")
        return document

    records = [Record(str(number), b'{"a":%d}' % number) for number in (1, 2, 3)]
    result = TransformStage(fails)(records)

    assert [made.id for made in result.produced] == ["1", "3"]
    rejection = result.rejected[0]
    assert rejection.record is records[1]
    assert (rejection.stage, rejection.error_class, rejection.error_type) == (
        "transform",
        "record",
        "KeyError",
    )
    assert "in fails" in rejection.stack_trace


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (lambda _: 5, "returned int, not a document"),
        (lambda _: "text", "returned str"),
        (lambda _: b"bytes", "returned bytes"),
        (lambda document: [document, 5], "a list that holds int"),
        (lambda _: {"a": object()}, "object"),
        (lambda _: (_ for _ in ()).throw(RecordError("half-way")), "half-way"),
    ],
)
def test_what_is_no_document_gives_the_record_up(transform: Callable[..., Any], words: str) -> None:
    """Wrong types, things that JSON cannot hold, a generator that fails: one dead letter, no record."""
    result = TransformStage(transform)([RECORD])

    assert result.produced == []
    assert len(result.rejected) == 1
    assert words in result.rejected[0].message


def test_a_record_that_is_no_json_object_is_given_up() -> None:
    """It cannot be decoded; without a transform it would pass untouched."""
    result = TransformStage(lambda document: document)([Record("1", b"[1]"), Record("2", b"{broken")])

    assert [rejection.record.id for rejection in result.rejected] == ["1", "2"]


@pytest.mark.parametrize("error", [TransientError("the price service is down"), PermanentError("no key")])
def test_an_error_that_is_not_about_the_record_ends_the_leg(error: Exception) -> None:
    """A transform that asks a service can say that the service is down: no record is to blame."""

    def asks(_document: dict[str, Any]) -> dict[str, Any]:
        raise error

    with pytest.raises(type(error)):
        TransformStage(asks)([RECORD])


@pytest.mark.parametrize("transform", [None, lambda document: document])
def test_what_the_source_could_not_read_is_taken_out(transform: Callable[..., Any] | None) -> None:
    """The transform and the sink never see it; it is given up by the source, and the others go on."""
    unreadable = UnreadableRecord("2", b'{"readable":{},"unreadable":{}}', message="field 'a' holds NaN")
    result = TransformStage(transform)([Record("1", b'{"a":1}'), unreadable, Record("3", b'{"a":3}')])

    assert [made.id for made in result.produced] == ["1", "3"]
    assert (result.transformed, result.filtered, result.rejected) == (2, 0, [])
    (rejection,) = result.unreadable
    assert rejection.record is unreadable
    assert (rejection.stage, rejection.error_class, rejection.error_type, rejection.message) == (
        "source",
        "record",
        "UnreadableRecord",
        "field 'a' holds NaN",
    )


def test_a_slow_transform_lets_the_loop_go_on_between_two_records() -> None:
    """About twice a second the run may save, or stop: what that raises comes through at once."""
    calls: list[int] = []

    def slow(document: dict[str, Any]) -> dict[str, Any]:
        calls.append(1)
        time.sleep(0.3)
        return document

    def stop() -> None:
        raise StoppedError("deploy")

    with pytest.raises(StoppedError, match="deploy"):
        TransformStage(slow)([RECORD] * 10, between=stop)
    assert len(calls) == 2


@pytest.mark.parametrize(("stage", "body"), [("sink", b'{"a":1}'), ("transform", b'{"a":2}')])
def test_a_replayed_record_is_transformed_once(stage: str, body: bytes) -> None:
    """What the sink gave up was transformed before; what the transform gave up was not."""
    letter = DeadLetter(
        job="j", run="r", token="t", partition="p", batch=1, id="1", stage=stage, error_class="record",
        error_type="KeyError", message="m", at=0.0, record=msgspec.Raw(b'{"a":1}'),
    )  # fmt: skip
    record = ReplayedRecord("1", b'{"a":1}', letter=letter)
    (made,) = TransformStage(lambda document: {"a": document["a"] + 1})([record]).produced

    assert made.body == body
