"""Settings objects: readable, the same in every process, no credentials, checked once they are rendered."""

from __future__ import annotations

import dataclasses
import functools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar

import pytest
from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value, holds_template, plain, qualified_name


@dataclass(frozen=True, kw_only=True, repr=False)
class Inner(Value):
    """A value inside another."""

    __templated__: ClassVar[tuple[str, ...]] = ("prefix",)

    prefix: str = "p"


@dataclass(frozen=True, kw_only=True, repr=False)
class Outer(Value):
    """A value with everything in it."""

    __templated__: ClassVar[tuple[str, ...]] = ("index", "query", "inner")

    index: str = "orders"
    query: dict[str, Any] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    fixed: str = ""
    timeout: timedelta = timedelta(minutes=2)
    transform: Callable[..., Any] | None = None
    secret: str = field(default="hunter2", repr=False)

    @override
    def check(self) -> None:
        if self.index.startswith("-"):
            message = f"Outer(index={self.index!r}): must not begin with a dash"
            raise UsageError(message)


class Scale:
    """A callable object."""

    def __call__(self, document: dict[str, Any]) -> dict[str, Any]:
        return document


class Reference:
    """Stands for Airflow's XComArg."""

    def iter_references(self) -> list[object]:
        return []


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        ("orders-{{ ds }}", True),
        ("{% if x %}", True),
        ("orders", False),
        ({"a": {"b": ["{{ ds }}"]}}, True),
        ({"{{ key }}": 1}, True),
        ({"a": (1, None, "x")}, False),
        ({"{{ in_a_set }}"}, True),
        (b"{{ ds }}", False),
        (Inner(prefix="{{ ds }}"), True),
        (Outer(inner=Inner(prefix="{{ ds }}")), True),
        (Outer(fixed="{{ ds }}"), False),
        (Reference(), True),
        (5, False),
    ],
)
def test_templates_are_found_wherever_they_hide(content: object, *, holds: bool) -> None:
    """In strings, keys, collections, values' templated fields, and what another task will return."""
    assert holds_template(content) is holds


def test_the_check_waits_for_the_rendering() -> None:
    """A field that still holds a template is not checked; the rendered value is."""
    unrendered = Outer(index="-{{ ds }}")
    with pytest.raises(UsageError, match="must not begin with a dash"):
        dataclasses.replace(unrendered, index="-2026-01-01")
    with pytest.raises(UsageError):
        Outer(index="-orders")
    assert Value().check() is None  # type: ignore[func-returns-value]  # the base refuses nothing


def test_serialize_gives_json_types_without_what_is_hidden() -> None:
    """Durations are seconds, callables are names, nested values are mappings, secrets are left out."""
    value = Outer(query={"at": date(2026, 1, 1), "ids": {"b", "a"}}, transform=Scale().__call__)

    assert value.serialize() == {
        "index": "orders",
        "query": {"at": "2026-01-01", "ids": ["a", "b"]},
        "inner": {"prefix": "p"},
        "fixed": "",
        "timeout": 120.0,
        "transform": f"{__name__}.Scale.__call__",
    }
    assert "hunter2" not in repr(value)
    assert repr(Inner(prefix="x")) == "Inner(prefix='x')"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (timedelta(seconds=90), 90.0),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
        ((1, ("a",)), [1, ["a"]]),
        (frozenset({2, 1}), [1, 2]),
        ({1: "x"}, {"1": "x"}),
        (object(), "object"),
        (len, "builtins.len"),
    ],
)
def test_plain_content(content: object, expected: object) -> None:
    """Each kind of setting as JSON types."""
    assert plain(content) == expected


def test_a_set_of_mixed_types_has_a_fixed_order_too() -> None:
    """What cannot be compared is still put in an order, the same in every process."""
    assert plain({1, "a", None}) == plain({None, "a", 1})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@host/x", "https://***@host/x"),
        ("https://token@host", "https://***@host"),
        ("https://user:p@ss@host/x", "https://***@host/x"),
        ("see https://u:p@a/ and http://v:q@b:9200", "see https://***@a/ and http://***@b:9200"),
        ("https://u:p@a,https://v:q@b", "https://***@b"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("mail me@example.org", "mail me@example.org"),
    ],
)
def test_credentials_in_urls_are_hidden(url: str, shown: str) -> None:
    """User and password never show, wherever the URL stands, whatever signs the password holds."""
    assert "p@" not in plain(url).replace("***@", "")
    if "," not in url:
        assert plain(url) == shown


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (Scale().__call__, "Scale.__call__"),
        (Scale(), "Scale"),
        (functools.partial(Scale().__call__, {}), "Scale.__call__"),
        (os.path.join, "join"),
    ],
)
def test_callables_are_named_by_what_they_are(function: object, name: str) -> None:
    """No address, no instance: the qualified name."""
    named = qualified_name(function)

    assert name in named
    assert "0x" not in named
    assert named.startswith("partial(") is isinstance(function, functools.partial)


def test_airflows_module_prefix_is_left_out() -> None:
    """Airflow loads a DAG file under a name made from its path, which differs between machines."""

    def transform() -> None:
        """Do nothing."""

    transform.__module__ = "unusual_prefix_0123456789abcdef_my_dag"

    assert qualified_name(transform).startswith("my_dag.")


def test_a_repr_is_the_same_in_every_process() -> None:
    """Else each parse of a DAG file makes a new version of the DAG."""
    code = (
        "from datetime import timedelta\n"
        "from airflow_batchkit.engine.policies import *\n"
        "from airflow_batchkit.engine.job import Job\n"
        "from airflow_batchkit.testing.doubles import *\n"
        "def transform(document): return document\n"
        "source = MemorySource(partitions={'a': []}, fingerprints={'b': '1', 'a': '2'})\n"
        "print(Job(name='j', source=source, sink=MemorySink(), transform=transform))\n"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert len(seen) == 1
    assert "0x" not in seen.pop()


def test_values_are_equal_by_content_and_survive_pickling() -> None:
    """As frozen dataclasses are."""
    assert pickle.loads(pickle.dumps(Outer(index="a"))) == Outer(index="a")  # noqa: S301  # our own bytes
    with pytest.raises(dataclasses.FrozenInstanceError):
        Outer().index = "b"  # type: ignore[misc]  # that is the test
