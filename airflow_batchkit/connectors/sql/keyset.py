"""Which rows come after a key: the predicates and the order that let each page be queries of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Predicate: TypeAlias = tuple[str, list[Any]]
"""A condition with placeholders, and the values for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyColumn:
    """One column of a key, as it is compared.

    :param expression: quoted, with its collation.
    :param parameter: writes the place of the bound value with a number, counted from 1 in its query.
    :param descending: whether it goes down.
    :param nulls: where its NULLs come: ``first``, ``last``, or ``none`` where it has none.
    :param order: what stands behind ``ORDER BY`` for it.
    """

    expression: str
    parameter: Callable[[int], str]
    descending: bool = False
    nulls: Literal["none", "first", "last"] = "none"
    order: str

    def equal(self, value: Any, number: int) -> Predicate:
        """Return the condition that finds a value."""
        if value is None:
            return f"{self.expression} IS NULL", []
        return f"{self.expression} = {self.parameter(number)}", [value]

    def beyond(self, value: Any, number: int, *, inclusive: bool) -> list[Predicate]:
        """Return the conditions that find what comes behind a value, in their order."""
        nulls = (f"{self.expression} IS NULL", list[Any]())
        if value is None:
            rest = [(f"{self.expression} IS NOT NULL", list[Any]())] if self.nulls == "first" else []
            return [nulls, *rest] if inclusive else rest
        operator = ("<" if self.descending else ">") + ("=" if inclusive else "")
        compared = (f"{self.expression} {operator} {self.parameter(number)}", [value])
        return [compared, nulls] if self.nulls == "last" else [compared]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyset:
    """A key's columns as they are compared.

    What comes after ``(7, "b")`` is asked in stages: first ``a = 7 AND b > 'b'``, then ``a > 7``. Each is
    one seek in an index on every database, whichever way the columns go. One predicate for all would be a
    row value, ``(a, b) > (7, 'b')``: it knows one direction only and no NULL, and SQLite (with a rowid in it)
    and MySQL answer it by walking through all rows with ``a = 7``. NULLs are a stage of their own for the
    same reason: ``b > 'b' OR b IS NULL`` would be no seek.

    :param columns: in the key's order.
    """

    columns: tuple[KeyColumn, ...]

    @property
    def order_by(self) -> str:
        """The list behind ``ORDER BY``."""
        return ", ".join(column.order for column in self.columns)

    def after(self, key: Sequence[Any]) -> list[Predicate]:
        """Return the stages for the rows strictly after a key, in their order."""
        return self._stages(key, inclusive=False)

    def starting_at(self, prefix: Sequence[Any]) -> list[Predicate]:
        """Return the stages for the rows from a key on, in their order.

        :param prefix: values of the first columns, or of all.
        """
        return self._stages(prefix, inclusive=True)

    def _stages(self, values: Sequence[Any], *, inclusive: bool) -> list[Predicate]:
        stages: list[Predicate] = []
        for position in reversed(range(len(values))):
            conditions: list[str] = []
            parameters: list[Any] = []
            for column, value in zip(self.columns[:position], values[:position], strict=True):
                condition, bound = column.equal(value, len(parameters) + 1)
                conditions.append(condition)
                parameters += bound
            last = inclusive and position == len(values) - 1
            beyond = self.columns[position].beyond(values[position], len(parameters) + 1, inclusive=last)
            stages += [
                (" AND ".join([*conditions, condition]), [*parameters, *bound]) for condition, bound in beyond
            ]
        return stages
