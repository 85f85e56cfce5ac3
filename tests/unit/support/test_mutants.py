"""What mutation testing changes, and what it leaves alone."""

from __future__ import annotations

import ast

import pytest

from tests.support.mutants import mutants


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("x = a < b", ["a < b → a <= b"]),
        ("x = a is None", ["a is None → a is not None"]),
        ("x = a and b", ["a and b without a", "a and b without b"]),
        ("x = not a", ["not a → (a)"]),
        ("x = a + 1", ["a + 1 → a - 1", "1 → 2"]),
        ("x = True", ["True → False"]),
        ("if a:\n    b()", ["a → (not (a))", "without b()"]),
        ("while a:\n    del b", ["a → (not (a))", "without del b"]),
        ("f(a, b=c)", ["without f(a, b=c)", "f(…) without b="]),
        ("x = f(a, b)", ["f(…) with its arguments reversed"]),
        ("x = [a for a in b if a]", ["a → (not (a))"]),
        ("a.b = c", ["without a.b = c"]),
        ("raise ValueError(1)", ["without raise ValueError(1)"]),
        ("x = 'key'", ["'key' → 'mutated'"]),
    ],
)
def test_every_small_change_is_one_mutant(code: str, changes: list[str]) -> None:
    """Operators, constants, conditions, arguments and statements are each changed once, and still compile."""
    found = mutants(code)
    assert [mutant.change for mutant in found] == changes
    for mutant in found:
        ast.parse(mutant.source)
        assert mutant.source != code


@pytest.mark.parametrize(
    "code",
    [
        '"""A sentence."""',
        "x = 'a message for people'",
        "x = f'a {b} c'",
        "self._log.warning('x', 1 + 1)",
        "if TYPE_CHECKING:\n    import a",
        "def f(a: int) -> int: ...",
        "class A(Protocol):\n    def f(self): return 1",
        "with effect('sink.put'): pass",
        "return None",
    ],
)
def test_what_changes_nothing_is_left_alone(code: str) -> None:
    """Texts for people, logging, annotations, protocols and names of effects have no mutants."""
    assert mutants(code) == []


def test_a_mutant_is_named_by_where_it_is() -> None:
    """Function, class and change: the name stays when lines move; the text around it stays as it was."""
    [mutant] = mutants("class A:\n    def f(self):\n        return  self.x  # why\n")
    assert mutant.name == "A.f: return self.x → return None"
    assert mutant.lines == (3, 3)
    assert mutant.source.endswith("        return None  # why\n")
