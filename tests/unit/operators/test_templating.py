"""Templates inside values are rendered, and a variable that is missing never means "everything"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jinja2
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException  # noqa: TID253  # what is tested
from airflow.providers.standard.operators.empty import EmptyOperator  # noqa: TID253  # wired in a DAG
from airflow.sdk import DAG  # noqa: TID253  # renders
from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value
from airflow_batchkit.operators.templating import TemplatedValuesOperator

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


@dataclass(frozen=True, kw_only=True, repr=False)
class Place(Value):
    """A value with templates."""

    __templated__: ClassVar[tuple[str, ...]] = ("url", "query")

    url: str
    query: Mapping[str, Any] | None = None
    size: int = 10

    @override
    def check(self) -> None:
        if not self.url.startswith("s3://"):
            raise UsageError(f"url={self.url!r}: must begin with s3://")


class Copy(TemplatedValuesOperator):
    """An operator with such a value."""

    template_fields: Collection[str] = ("place", "places", "index", "start_at")
    may_be_empty: ClassVar[Sequence[str]] = ("start_at",)

    def __init__(
        self,
        *,
        place: Place | None = None,
        places: Sequence[Place] = (),
        index: Any = "orders",
        start_at: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_id="copy", **kwargs)
        self.place = place
        self.places = places
        self.index = index
        self.start_at = start_at


def render(operator: Copy, *, undefined: type[Any] = jinja2.StrictUndefined, **context: Any) -> Copy:
    """Render as the task runner does, with variables of the test."""
    with DAG("templating", schedule=None, template_undefined=undefined) as dag:
        pass
    environment = dag.get_template_env()
    operator.render_template_fields(context, environment)  # type: ignore[arg-type]  # no whole context
    return operator


def test_values_are_rendered() -> None:
    """Templated fields of a value, also in nested collections, become text; the others stay."""
    place = Place(url="s3://lake/ds={{ ds }}", query={"range": {"day": {"gte": "{{ ds }}"}}}, size=5)
    rendered = render(Copy(place=place, places=[place]), ds="2026-01-02")
    assert rendered.place == Place(
        url="s3://lake/ds=2026-01-02", query={"range": {"day": {"gte": "2026-01-02"}}}, size=5
    )
    assert rendered.places == [rendered.place]
    rendered.refuse_unrendered()


def test_rendered_values_are_checked() -> None:
    """What only rendering shows to be wrong fails the task at once, without a retry, with the reason."""
    with pytest.raises(AirflowFailException, match=r"place: url='lake': must begin with s3://"):
        render(Copy(place=Place(url="{{ bucket }}")), bucket="lake")


@pytest.mark.parametrize("nothing", ["", None, "None"])
def test_template_that_renders_to_nothing_is_refused(nothing: str | None) -> None:
    """A field, or a part of a query, that was there and renders to nothing fails the task."""
    with pytest.raises(AirflowFailException, match=r"^index: "):
        render(Copy(index="{{ name }}"), name=nothing)
    with pytest.raises(AirflowFailException, match=r"^place: "):
        render(Copy(place=Place(url="s3://l", query={"term": {"customer": "{{ name }}"}})), name=nothing)


def test_none_inside_a_text_is_refused() -> None:
    """``ds={{ ds }}`` must not become ``ds=None``, nor ``ds=`` where undefined variables are let through."""
    with pytest.raises(AirflowFailException, match=r"^place: .*is None"):
        render(Copy(place=Place(url="s3://lake/ds={{ ds }}")), ds=None)
    with pytest.raises(AirflowFailException, match=r"^place: 'ds' is undefined"):
        render(Copy(place=Place(url="s3://lake/ds={{ ds }}")), undefined=jinja2.Undefined)


def test_missing_variable_is_named() -> None:
    """A manual run without a logical date has no ``ds``: one line says which field needs it."""
    with pytest.raises(AirflowFailException, match=r"^index: 'ds' is undefined; .*without a logical date"):
        render(Copy(index="orders-{{ ds }}"))


@pytest.mark.parametrize(("given", "rendered"), [("", ""), (None, "None"), ("2026-01-02", "2026-01-02")])
def test_fields_of_the_trigger_form_may_be_empty(given: str | None, rendered: str) -> None:
    """A form field that is left empty is an answer."""
    assert render(Copy(start_at="{{ params_start_at }}"), params_start_at=given).start_at == rendered


def test_expressions_with_falsy_values_are_values() -> None:
    """Zero and false are not nothing."""
    assert (
        render(Copy(index="orders-{{ number }}-{{ flag }}"), number=0, flag=False).index == "orders-0-False"
    )


def test_unrendered_template_is_refused() -> None:
    """A ``{{`` that came out of a template, or was never rendered, fails before any work."""
    rendered = render(Copy(index="{{ name }}"), name="orders-{{ ds }}")
    with pytest.raises(UsageError, match="index still holds a template"):
        rendered.refuse_unrendered()
    with pytest.raises(UsageError, match="place still holds a template"):
        Copy(place=Place(url="{{ url }}")).refuse_unrendered()


def test_results_of_other_tasks_wire_the_dependency() -> None:
    """An XComArg inside a value makes its task an upstream, whenever it is assigned."""
    with DAG("wiring", schedule=None):
        first, second = EmptyOperator(task_id="first"), EmptyOperator(task_id="second")
        copy = Copy(place=Place(url=first.output, query={"ids": [second.output]}))  # type: ignore[arg-type]  # XComArg
        assert copy.upstream_task_ids == {"first", "second"}
        third = EmptyOperator(task_id="third")
        copy.place = Place(url=third.output)  # type: ignore[arg-type]  # XComArg
    assert copy.upstream_task_ids == {"first", "second", "third"}


def test_values_are_serialised_as_settings() -> None:
    """The serialised DAG holds a readable dict, the same at each parse."""
    from airflow.serialization.helpers import serialize_template_field

    place = Place(url="s3://lake/ds={{ ds }}", size=5)
    serialised = serialize_template_field(place, "place")
    assert serialised == {"query": None, "size": 5, "url": "s3://lake/ds={{ ds }}"}
    assert serialised == serialize_template_field(Place(url="s3://lake/ds={{ ds }}", size=5), "place")
