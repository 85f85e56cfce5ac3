"""Templates inside frozen values, rendered strictly: a variable that is missing never means "everything"."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, XComArg
from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value, holds_template

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.common.compat.sdk import Context

_NOTHING = ("", "None")
_NO_LOGICAL_DATE = "a manual run without a logical date has no ds, data_interval_start or logical_date"


class TemplatedValuesOperator(BaseOperator):
    """An operator whose arguments may be frozen values with templates inside."""

    #: Templated fields for which "nothing" is an answer: a field of the trigger form that is left empty.
    may_be_empty: ClassVar[Sequence[str]] = ()

    @override
    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render as Airflow does, and values by replacing their templated fields with rendered ones.

        :raises UsageError: a template rendered to nothing where something is needed, or to what cannot work.
        """
        if isinstance(content, Value):
            return dataclasses.replace(
                content,  # type: ignore[type-var]  # every Value is a dataclass
                **{
                    name: self.render_template(getattr(content, name), context, jinja_env, seen_oids)
                    for name in content.__templated__
                },
            )
        rendered = super().render_template(content, context, jinja_env, seen_oids)
        if _is_strict(jinja_env) and content and (rendered is None or rendered in _NOTHING):
            raise UsageError(f"{_shown(content)} renders to {rendered!r}")
        return rendered

    @override
    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        import jinja2

        strict = jinja_env.overlay(finalize=_refuse_nothing)
        for name in template_fields:
            environment = jinja_env if name in self.may_be_empty else strict
            try:
                super()._do_render_template_fields(parent, (name,), context, environment, seen_oids)
            except (UsageError, jinja2.TemplateError) as error:
                message = f"{name}: {error}; nothing was read or written. Give the template a value"
                if isinstance(error, jinja2.UndefinedError):
                    message += f" ({_NO_LOGICAL_DATE})"
                raise AirflowFailException(message) from error

    @override
    def _set_xcomargs_dependencies(self) -> None:
        super()._set_xcomargs_dependencies()
        for name in self.template_fields:
            self._set_xcomargs_dependency(name, getattr(self, name, None))

    @override
    def _set_xcomargs_dependency(self, field: str, newvalue: Any) -> None:
        if field in self.template_fields:
            XComArg.apply_upstream_relationship(self, list(_inside(newvalue)))

    def refuse_unrendered(self) -> None:
        """Refuse to work with a template that nobody rendered.

        :raises UsageError: which field it is in.
        """
        for name in self.template_fields:
            if holds_template(getattr(self, name, None)):
                raise UsageError(
                    f"{name} still holds a template after rendering: {_shown(getattr(self, name))}; "
                    "is a '{{' in a text that came out of a template?"
                )


def _refuse_nothing(result: Any) -> Any:
    """Refuse what an expression between ``{{`` and ``}}`` must not give: nothing at all."""
    import jinja2

    if isinstance(result, jinja2.Undefined):
        result._fail_with_undefined_error()  # noqa: SLF001  # documented: raises, naming the variable
    if result is None:
        raise UsageError("an expression in the template is None")
    return result


def _is_strict(environment: jinja2.Environment | None) -> bool:
    return environment is not None and environment.finalize is _refuse_nothing


def _inside(content: Any) -> Iterable[Any]:
    if isinstance(content, Value):
        for name in content.__templated__:
            yield from _inside(getattr(content, name))
    elif isinstance(content, Mapping):
        for part in content.values():
            yield from _inside(part)
    elif isinstance(content, list | tuple | set | frozenset):
        for part in content:
            yield from _inside(part)
    else:
        yield content


def _shown(content: Any) -> str:
    text = repr(content)
    return text if len(text) <= 120 else f"{text[:119]}…"  # noqa: PLR2004  # one line of a log
