"""What is asked of each document: the whole of it, some of its fields, or fields that are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_batchkit.engine.exceptions import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """Selects from each document.

    :param source_includes: only these of its own fields, with wildcards.
    :param source_excludes: not these of its own fields.
    :param fields: instead of the document, these values as Elasticsearch's ``fields`` option gives them.
    :param runtime_mappings: fields that exist only in this search.
    """

    source_includes: Sequence[str] = ()
    source_excludes: Sequence[str] = ()
    fields: Sequence[str | Mapping[str, Any]] = ()
    runtime_mappings: Mapping[str, Any] | None = None

    @property
    def only_fields(self) -> bool:
        """Whether a record is not the document but an object of fields."""
        return bool(self.fields)

    @property
    def runtime(self) -> dict[str, Any]:
        """The part of a search that makes the runtime fields known to its query."""
        return {"runtime_mappings": self.runtime_mappings} if self.runtime_mappings else {}

    @property
    def body(self) -> dict[str, Any]:
        """The parts of a search that say what to return; none for whole documents, which cost least."""
        if self.fields:
            return {**self.runtime, "_source": False, "fields": list(self.fields)}
        chosen = {"includes": list(self.source_includes), "excludes": list(self.source_excludes)}
        chosen = {name: patterns for name, patterns in chosen.items() if patterns}
        return {**self.runtime, **({"_source": chosen} if chosen else {})}

    def check(self) -> None:
        """Refuse what contradicts itself.

        :raises UsageError: which settings.
        """
        for name in ("source_includes", "source_excludes", "fields"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(value):
                raise UsageError(f"{name}={value!r}: give a list of field names, none of them empty")
        if self.fields and (self.source_includes or self.source_excludes):
            raise UsageError(
                "fields come instead of the document: leave out source_includes and source_excludes"
            )
