"""Small wrong versions of a module: each is one change that some test should notice."""

from __future__ import annotations

import ast
import copy
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NEIGHBOUR: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPPOSITE: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
}
_LOGGING = {"debug", "info", "warning", "error", "exception"}
_DECIDED_ELSEWHERE = (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Constant)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change to a module.

    :param scope: the function it is in, with its class; ``module`` outside of functions.
    :param lines: first and last line of what is changed, from 1.
    :param change: what is changed, for people.
    :param source: the whole changed module.
    """

    scope: str
    lines: tuple[int, int]
    change: str
    source: str

    @property
    def name(self) -> str:
        """What tells it from the others of its module, also when lines move."""
        return f"{self.scope}: {self.change}"


def mutants(source: str) -> list[Mutant]:
    """Return every mutant of a module's text; messages, logging and annotations are left alone."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return finder.found


class _Finder(ast.NodeVisitor):
    """Walks a module once and notes the mutants of each node.

    :param source: the module's text.
    """

    def __init__(self, source: str) -> None:
        self.found: list[Mutant] = []
        self._bytes = source.encode()
        self._line_starts = [0]
        for line in self._bytes.splitlines(keepends=True):
            self._line_starts.append(self._line_starts[-1] + len(line))
        self._scope: list[str] = []

    # what is left alone

    @override
    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave f-strings alone: Python 3.11 does not know where in them the parts stand."""

    @override
    def visit_arg(self, node: ast.arg) -> None:
        """Leave annotations alone: they do nothing."""

    @override
    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    @override
    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return
        self._negate(node.test)
        self.generic_visit(node)

    # where it is

    @override
    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if not any(ast.unparse(base) == "Protocol" for base in node.bases):
            self._within(node.name, node.body)

    @override
    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        defaults = [default for default in node.args.kw_defaults if default is not None]
        self._within(node.name, [*node.args.defaults, *defaults, *node.body])

    def _within(self, name: str, parts: Sequence[ast.AST]) -> None:
        self._scope.append(name)
        for part in parts:
            self.visit(part)
        self._scope.pop()

    # statements

    @override
    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant) or _is_logging(node.value):
            return
        self._note(node, "pass")
        self.generic_visit(node)

    @override
    def visit_Raise(self, node: ast.Raise) -> None:
        self._note(node, "pass")

    @override
    def visit_Assign(self, node: ast.Assign) -> None:
        kept = all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets)
        if kept and self._scope[-1:] != ["__init__"]:  # what was never set is noticed by whatever runs at all
            self._note(node, "pass")
        self.visit(node.value)

    @override
    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._note(node, "pass")
        self.visit(node.value)

    @override
    def visit_Delete(self, node: ast.Delete) -> None:
        self._note(node, "pass")

    @override
    def visit_Continue(self, node: ast.Continue) -> None:
        self._note(node, "pass")

    @override
    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            self._note(node, "pass")
        elif isinstance(node.value, ast.Constant):
            self.visit(node.value)
        else:
            self._note(node, "return None")
            self.visit(node.value)

    @override
    def visit_While(self, node: ast.While) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    # expressions

    @override
    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    @override
    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    @override
    def visit_Compare(self, node: ast.Compare) -> None:
        for position, operator in enumerate(node.ops):

            def swap(twin: ast.Compare, position: int = position, operator: ast.cmpop = operator) -> None:
                twin.ops[position] = _NEIGHBOUR[type(operator)]()

            self._change(node, swap)
        self.generic_visit(node)

    @override
    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for position, operand in enumerate(node.values):
            change = f"{_short(node)} without {_short(operand)}"
            self._change(node, lambda twin, position=position: twin.values.pop(position), change)
        self.generic_visit(node)

    @override
    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub):
            self._note(node, f"({ast.unparse(node.operand)})")
        self.generic_visit(node)

    @override
    def visit_BinOp(self, node: ast.BinOp) -> None:
        opposite = _OPPOSITE.get(type(node.op))
        if opposite is not None:
            self._change(node, lambda twin: setattr(twin, "op", opposite()))
        self.generic_visit(node)

    @override
    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func) == "effect":
            return
        called = f"{ast.unparse(node.func)}(…)"
        for position, keyword in enumerate(node.keywords):
            if keyword.arg is not None:
                change = f"{called} without {keyword.arg}="
                self._change(node, lambda twin, position=position: twin.keywords.pop(position), change)
        ordered = ast.unparse(node.func) not in {"max", "min"}
        if ordered and len(node.args) > 1 and not any(isinstance(one, ast.Starred) for one in node.args):
            self._change(node, lambda twin: twin.args.reverse(), f"{called} with its arguments reversed")
        self.generic_visit(node)

    @override
    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._note(node, repr(not value))
        elif isinstance(value, int | float):
            self._note(node, repr(value + 1))
        elif isinstance(value, bytes):
            self._note(node, repr(b"mutated"))
        elif isinstance(value, str) and " " not in value:  # a text with blanks is for people
            self._note(node, repr("mutated"))

    # noting

    def _negate(self, test: ast.expr) -> None:
        if not isinstance(test, _DECIDED_ELSEWHERE):
            self._note(test, f"(not ({ast.unparse(test)}))")

    def _change(self, node: ast.expr, change: Callable[..., object], name: str = "") -> None:
        twin = copy.deepcopy(node)
        change(twin)
        if isinstance(twin, ast.BoolOp) and len(twin.values) == 1:
            twin = twin.values[0]
        self._note(node, f"({ast.unparse(twin)})", name or f"{_short(node)} → {_short(twin)}")

    def _note(self, node: ast.expr | ast.stmt, after: str, change: str = "") -> None:
        if after == "pass":
            change = f"without {_short(node)}"
        last_line, last_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        start = self._line_starts[node.lineno - 1] + node.col_offset
        end = self._line_starts[last_line - 1] + last_column
        changed = self._bytes[:start] + after.encode() + self._bytes[end:]
        self.found.append(
            Mutant(
                scope=".".join(self._scope) or "module",
                lines=(node.lineno, last_line),
                change=change or f"{_short(node)} → {after}",
                source=changed.decode(),
            )
        )


def _short(node: ast.AST) -> str:
    return textwrap.shorten(ast.unparse(node), 90, placeholder="…")


def _is_logging(value: ast.expr) -> bool:
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Attribute)
        and value.func.attr in _LOGGING
        and ast.unparse(value.func.value).endswith("log")
    )
