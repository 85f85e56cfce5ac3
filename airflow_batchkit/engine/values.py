"""Base of everything a user writes into a DAG: frozen, checked when made, readable in logs and in the UI."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence, Set as AbstractSet
from datetime import date, timedelta
from typing import Any, ClassVar

from typing_extensions import override

_TEMPLATE = re.compile(r"\{\{|\{%")
_USERINFO = re.compile(r"(?<=://)[^/\s]+@")


def holds_template(content: object) -> bool:
    """Tell whether a string, also inside a collection, still holds Jinja's ``{{`` or ``{%``."""
    if isinstance(content, str):
        return _TEMPLATE.search(content) is not None
    if isinstance(content, Mapping):
        return any(holds_template(key) or holds_template(value) for key, value in content.items())
    if isinstance(content, Sequence | AbstractSet) and not isinstance(content, bytes):
        return any(holds_template(item) for item in content)
    if isinstance(content, Value):
        return any(holds_template(getattr(content, name)) for name in content.__templated__)
    # What another task returns (Airflow's XComArg) stands here until the task runs, as a template does.
    return hasattr(content, "iter_references")


def qualified_name(function: object) -> str:
    """Name a callable the same in every process (a ``repr``'s address would change a DAG's hash)."""
    if isinstance(function, functools.partial):
        return f"partial({qualified_name(function.func)})"
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    # Airflow loads DAG files under a module name made from the path; only the last part is the file's own.
    module = re.sub(r"^unusual_prefix_[0-9a-f]+_", "", getattr(function, "__module__", None) or "")
    return f"{module}.{name}" if module else str(name)


def plain(content: object) -> Any:  # noqa: PLR0911  # one return per kind of value
    """Turn a setting into JSON types: durations into seconds, callables into names, no URL credentials."""
    if isinstance(content, Value):
        return content.serialize()
    if isinstance(content, str):
        return _USERINFO.sub("***@", content)
    if content is None or isinstance(content, bool | int | float):
        return content
    if isinstance(content, timedelta):
        return content.total_seconds()
    if isinstance(content, date):
        return content.isoformat()
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, AbstractSet):
        return sorted((plain(item) for item in content), key=repr)
    if isinstance(content, Sequence):
        return [plain(item) for item in content]
    if callable(content):
        return qualified_name(content)
    return type(content).__qualname__


class Value:
    """A frozen settings object; subclasses are ``@dataclass(frozen=True, kw_only=True, repr=False)``.

    ``__templated__`` names the fields that Airflow renders. While one of them still holds a template, the
    check waits: rendering makes a new value by ``dataclasses.replace``, which checks again.
    """

    __templated__: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not holds_template(self):
            self.check()

    def check(self) -> None:
        """Refuse what can never work.

        :raises UsageError: in one line: which field, what it holds, what it may hold.
        """

    def serialize(self) -> dict[str, Any]:
        """Return the settings as JSON types, for the UI, the start block and the serialised DAG."""
        return {
            field.name: plain(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]  # every subclass is a dataclass
            if field.repr
        }

    @override
    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.serialize().items())
        return f"{type(self).__name__}({settings})"
