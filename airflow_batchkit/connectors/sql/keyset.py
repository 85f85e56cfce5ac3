"""Which rows come after a key: the predicates and the order that let each page be queries of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Predicate: TypeAlias = tuple[str, list[Any]]
"""A condition with placeholders, and the values for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyset:
    """A key's columns as they are compared.

    What comes after ``(7, "b")`` is asked in stages: first ``a = 7 AND b > 'b'``, then ``a > 7``. Each is
    one seek in an index on every database, whichever way the columns go. One predicate for all would be a
    row value, ``(a, b) > (7, 'b')``: it knows one direction only, and SQLite (with a rowid in it) and MySQL
    answer it by walking through all rows with ``a = 7``.

    :param columns: quoted, with their collation.
    :param descending: by column, whether it goes down.
    :param placeholder: how a bound value is written.
    """

    columns: tuple[str, ...]
    descending: tuple[bool, ...]
    placeholder: str

    @property
    def order_by(self) -> str:
        """The list behind ``ORDER BY``."""
        return ", ".join(
            f"{column} DESC" if down else column
            for column, down in zip(self.columns, self.descending, strict=True)
        )

    def after(self, key: Sequence[Any]) -> list[Predicate]:
        """Return the stages for the rows strictly after a key, in their order."""
        return self._stages(key, inclusive=False)

    def starting_at(self, prefix: Sequence[Any]) -> list[Predicate]:
        """Return the stages for the rows from a key on, in their order.

        :param prefix: values of the first columns, or of all.
        """
        return self._stages(prefix, inclusive=True)

    def _stages(self, values: Sequence[Any], *, inclusive: bool) -> list[Predicate]:
        stages = []
        for position in reversed(range(len(values))):
            equal = [f"{column} = {self.placeholder}" for column in self.columns[:position]]
            operator = "<" if self.descending[position] else ">"
            if inclusive and position == len(values) - 1:
                operator += "="
            beyond = f"{self.columns[position]} {operator} {self.placeholder}"
            stages.append((" AND ".join([*equal, beyond]), list(values[: position + 1])))
        return stages


def any_of(stages: Sequence[Predicate]) -> Predicate:
    """Return one condition for all stages together."""
    condition = " OR ".join(f"({condition})" for condition, _ in stages)
    return f"({condition})", [value for _, values in stages for value in values]
