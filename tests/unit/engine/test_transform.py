"""The transform stage: what may come out of a user's function, and what its fingerprint notices."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import PermanentError, RecordError, TransientError
from airflow_batchkit.engine.transform import TransformStage, transform_fingerprint
from airflow_batchkit.engine.types import Record

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

    for transform in (lambda _: None, lambda _: [], empty):
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
    """Also as a method, a callable object or a partial; a second argument with a default is the user's own."""

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
    """Wrong types, things that JSON cannot hold, a generator that fails: one dead letter, nothing produced."""
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


def defined(source: str, name: str = "transform") -> Callable[..., Any]:
    """Make a function from source text, as an edited DAG file would."""
    module = types.ModuleType("dag_file")
    exec(source, module.__dict__)  # noqa: S102  # the test's own text
    made: Callable[..., Any] = module.__dict__[name]
    made.__module__ = "dag_file"
    return made


BEFORE = """
def transform(document, factor=2, *, suffix="x"):
    if document["a"] in {"b", "c", "d"}:
        return {**document, "n": [factor * i for i in range(3)]}
    return {**document, "s": suffix}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("factor * i", "factor + i"),
        ("factor=2", "factor=3"),
        ('suffix="x"', 'suffix="y"'),
        ('"b", "c", "d"', '"b", "c", "e"'),
        ("range(3)", "range(4)"),
        ('"n"', '"m"'),
        ('document["a"]', 'document["z"]'),
    ],
)
def test_a_changed_function_has_another_fingerprint(old: str, new: str) -> None:
    """Code, constants, names, defaults (also keyword-only), nested functions."""
    changed = BEFORE.replace(old, new)

    assert changed != BEFORE
    assert transform_fingerprint(defined(changed)) != transform_fingerprint(defined(BEFORE))


def test_layout_and_comments_are_no_change() -> None:
    """Moved in its file, commented, or loaded again: the same function."""
    moved = "\n\n# a comment\n" + BEFORE.replace("    if document", "    # why\n    if document")

    assert transform_fingerprint(defined(moved)) == transform_fingerprint(defined(BEFORE))
    assert transform_fingerprint(None) == "none"


def test_bound_values_are_part_of_it() -> None:
    """Arguments of a partial, closure values, in any order of keywords that means the same."""

    def closure(factor: object) -> Callable[..., Any]:
        return lambda document: {**document, "f": factor}

    def base(factor: int, document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "f": factor}

    assert transform_fingerprint(closure(1)) == transform_fingerprint(closure(1))
    assert transform_fingerprint(closure(1)) != transform_fingerprint(closure(2))
    assert transform_fingerprint(closure({1, "a"})) == transform_fingerprint(closure({"a", 1}))
    one, two = functools.partial(base, 1), functools.partial(base, 2)
    assert transform_fingerprint(one) != transform_fingerprint(two)
    assert transform_fingerprint(one) == transform_fingerprint(functools.partial(base, 1))
    named = transform_fingerprint(functools.partial(base, factor=1, extra=len))
    assert named == transform_fingerprint(functools.partial(base, extra=len, factor=1))
    assert named != transform_fingerprint(functools.partial(base, factor=1, extra=max))


def test_what_a_decorator_wraps_is_looked_into() -> None:
    """The work is done in the wrapped function: its change is a change."""
    decorated = (
        "import functools\n"
        "def careful(function):\n"
        "    @functools.wraps(function)\n"
        "    def wrapper(document): return function(document)\n"
        "    return wrapper\n"
        "@careful\n"
        "def transform(document): return {**document, 'a': 1}\n"
    )
    changed = decorated.replace("'a': 1", "'a': 2")

    assert transform_fingerprint(defined(decorated)) == transform_fingerprint(defined(decorated))
    assert transform_fingerprint(defined(decorated)) != transform_fingerprint(defined(changed))


def test_a_function_that_calls_itself_has_one() -> None:
    """Its closure holds itself, which is named, not looked into; an unset cell is no trouble."""

    def flat(document: dict[str, Any]) -> dict[str, Any]:
        return flat(document["inner"]) if "inner" in document else document

    def unset() -> Callable[..., Any]:
        def uses(document: dict[str, Any]) -> dict[str, Any]:
            return {**document, "late": late}

        if document_never_set:
            late = 1
        return uses

    document_never_set = False
    assert transform_fingerprint(flat) == transform_fingerprint(flat)
    assert len(transform_fingerprint(unset())) == 12


def test_callable_objects_are_known_by_their_call() -> None:
    """Also when it is inherited; a class or a function written in C has its name."""
    old = defined("class Base:\n  def __call__(self, d): return d\nclass T(Base): pass\n", "T")
    new = defined("class Base:\n  def __call__(self, d): return {}\nclass T(Base): pass\n", "T")

    assert transform_fingerprint(old()) != transform_fingerprint(new())
    assert transform_fingerprint(old()) == transform_fingerprint(old())
    assert transform_fingerprint(dict) != transform_fingerprint(len)


def test_the_fingerprint_is_the_same_in_every_process(tmp_path: Path) -> None:
    """Another hash seed, another process: the same short hash, else no retry could resume."""
    (tmp_path / "dag_file.py").write_text(
        "import functools\n"
        "LOOKUP = {'x', 'y', 'z'}\n"
        "def outer(names):\n"
        "    def transform(document, kinds=frozenset({'p', 'q', 'r'})):\n"
        "        if document['k'] in {'a', 'b', 'c', 'd'}: return document\n"
        "        return [{**document, 'n': n} for n in names if (lambda x: x)(n)]\n"
        "    return transform\n"
        "transform = functools.partial(outer({'k', 'l', 'm'}), kinds={'u', 'v'})\n"
    )
    code = (
        "from dag_file import transform\n"
        "from airflow_batchkit.engine.transform import transform_fingerprint\n"
        "print(transform_fingerprint(transform))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(seen) == 1
