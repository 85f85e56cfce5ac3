"""What a transform's fingerprint notices, and what it does not."""

from __future__ import annotations

import copy
import functools
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_batchkit.engine.transform import transform_fingerprint


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

    def base(factor: int, document: dict[str, Any], extra: object = None) -> dict[str, Any]:
        return {**document, "f": factor, "e": extra}

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
    assert transform_fingerprint(dict) != transform_fingerprint(copy.copy)


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
