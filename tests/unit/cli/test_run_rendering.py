"""Templates on the command line: what a worker would have rendered, or one line that says what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any, ClassVar

import pytest
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, task  # noqa: TID253  # what is tested
from typing_extensions import override

from airflow_batchkit.cli.run_dates import dates_of
from airflow_batchkit.cli.run_rendering import HandRun, rendered
from airflow_batchkit.cli.run_supervisor import supervised
from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.operators.pipeline import BatchPipelineOperator
from tests.support.airflow import run_dag

DAY = date(2026, 11, 22)
DATES = (
    "ds",
    "ds_nodash",
    "ts",
    "ts_nodash",
    "ts_nodash_with_tz",
    "logical_date",
    "data_interval_start",
    "data_interval_end",
    "data_interval_start | ds",
    "data_interval_end | ts",
    "macros.ds_add(ds, -7)",
    "macros.datetime(2026, 1, 1)",
    "dag_run.conf",
    "dag_run.run_id",
    "dag_run.logical_date",
    "dag_run.run_type",
    "run_id",
    "params",
    "params.region | upper",
    "var.value.batchkit_team",
    "var.json.batchkit_limits.high",
    "var.value.get('batchkit_nobody', 'fallback')",
    "conn.batchkit_shop.host",
    "task.task_id",
    "dag.dag_id",
    "ti.map_index",
    "ti.max_tries",
    "task_instance_key_str",
)


class Texts(BatchPipelineOperator):
    """Renders texts, and in Airflow keeps what became of them."""

    template_fields = ("texts", *BatchPipelineOperator.template_fields)
    kept: ClassVar[list[str]] = []

    def __init__(self, *, texts: Any, **kwargs: Any) -> None:
        super().__init__(
            **{
                "task_id": "texts",
                "source": IterableSource(records=list),
                "sink": ObjectStorageSink(url="file:///nowhere"),
                **kwargs,
            }
        )
        self.texts = texts

    @override
    def execute(self, context: Any) -> dict[str, Any]:
        self.kept[:] = self.texts
        return {}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AIRFLOW_VAR_BATCHKIT_TEAM", "lake")
    monkeypatch.setenv("AIRFLOW_VAR_BATCHKIT_LIMITS", '{"high": 7}')
    monkeypatch.setenv("AIRFLOW_CONN_BATCHKIT_SHOP", '{"conn_type": "sqlite", "host": "/data/shop.db"}')
    with supervised({("days", "return_value"): ["mon", "tue"], ("days", "count"): 2}):
        yield


def dag_of(texts: Any, schedule: Any = None, **arguments: Any) -> DAG:
    """Make a DAG with one task."""
    with DAG(
        "rendering",
        schedule=schedule,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        params={"region": Param("eu", type="string")},
        **arguments,
    ) as dag:
        Texts(texts=texts, retries=2)
    return dag


def texts_of(
    dag: DAG,
    *,
    given: date | None = DAY,
    run_id: str | None = None,
    conf: Mapping[str, Any] | None = None,
    map_index: int = -1,
) -> Any:
    """Render the DAG's task for a date."""
    dates = dates_of(dag, given)
    run = HandRun(run_id=run_id or dates.run_id, dates=dates, conf=conf or {}, map_index=map_index)
    ready = rendered(dag.task_dict["texts"], run)
    assert isinstance(ready, Texts)
    return ready.texts


@pytest.mark.airflow
@pytest.mark.usefixtures("airflow_database")
@pytest.mark.parametrize(
    "schedule", [CronDataIntervalTimetable("@daily", timezone="Europe/Zurich"), "@daily", None], ids=repr
)
def test_everything_is_rendered_as_airflow_does(schedule: Any) -> None:
    """For the same run, every template gives the text that Airflow itself gives."""
    at, conf = datetime(2026, 11, 22, 1, 30, tzinfo=UTC), {"region": "us", "more": [1, {"a": None}]}
    templates = [f"{{{{ {expression} }}}}" for expression in DATES]
    run = run_dag(dag_of(templates, schedule), logical_date=at, conf=conf)
    assert run.state == "success"
    ours = texts_of(dag_of(templates, schedule), given=at, run_id=run.run_id, conf=conf)
    assert dict(zip(DATES, ours, strict=True)) == dict(zip(DATES, Texts.kept, strict=True))


def test_a_scheduled_run_has_its_own_interval() -> None:
    """A date that the schedule has is rendered with the interval of that run, not of a manual one."""
    dag = dag_of(
        ["{{ data_interval_start | ds }}/{{ ds }}"], CronDataIntervalTimetable("@daily", timezone="UTC")
    )
    assert texts_of(dag) == ["2026-11-22/2026-11-22"]


def test_values_are_rendered_too() -> None:
    """Templates inside of sources, sinks and dead letters are rendered, the DAG's own task is not."""
    with DAG("rendering", schedule=None) as dag:
        Texts(
            texts=[],
            sink=ObjectStorageSink(url="file:///lake/ds={{ ds }}"),
            dead_letters=DeadLetters("file:///letters/{{ ds_nodash }}"),
        )
    original = dag.task_dict["texts"]
    dates = dates_of(dag, DAY)
    ready = rendered(original, HandRun(run_id="r", dates=dates, conf={}))
    assert ready.sink_value().serialize()["url"] == "file:///lake/ds=2026-11-22"
    assert ready.dead_letters is not None
    assert "letters/20261122" in str(ready.dead_letters)
    assert isinstance(original, Texts)
    assert "{{ ds }}" in str(original.sink_value())


def test_given_xcoms_are_rendered() -> None:
    """What another task returned is taken from the command line, as an argument and in a template."""
    with DAG("rendering", schedule=None) as dag:

        @task
        def days() -> list[str]:
            return []

        Texts(texts=[days(), "{{ ti.xcom_pull(task_ids='days', key='count') }}"])
    assert texts_of(dag) == [["mon", "tue"], "2"]


def test_a_mapped_task_is_rendered_by_its_index() -> None:
    """One instance of a mapped task can be run; which one has to be said."""
    with DAG("rendering", schedule=None) as dag:
        Texts.partial(task_id="texts").expand(texts=[["{{ ds }} a"], ["{{ ds }} b"]])
    assert texts_of(dag, map_index=1) == ["2026-11-22 b"]
    with pytest.raises(UsageError, match=r"is mapped: .* --map-index N"):
        texts_of(dag)
    with pytest.raises(UsageError, match="--map-index 2: task 'texts' has 2 instances"):
        texts_of(dag, map_index=2)
    with pytest.raises(UsageError, match="is not mapped: leave --map-index out"):
        texts_of(dag_of([]), map_index=0)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ prev_start_date_success }}", "dag run.* is in Airflow's database only"),
        ("{{ prev_data_interval_end_success }}", "dag run.* is in Airflow's database only"),
        ("{{ ti.get_previous_dagrun() }}", "previous dag run.* is in Airflow's database only"),
        ("{{ ti.xcom_pull(task_ids='survey') }}", "'survey' returned .* --xcom survey=JSON"),
        ("{{ var.value.batchkit_nobody }}", "batchkit_nobody is not set: .* AIRFLOW_VAR_"),
        ("{{ conn.batchkit_nobody.host }}", "`batchkit_nobody` isn't defined: set AIRFLOW_CONN_"),
        ("{{ params.nobody }}", "nobody"),
        ("{{ no_such_name }}", "'no_such_name' is undefined"),
        ("{{ ds", "unexpected end of template"),
        ("{{ 1 / 0 }}", "cannot be rendered: ZeroDivisionError"),
    ],
)
def test_what_cannot_be_rendered_is_one_line(template: str, message: str) -> None:
    """A template that asks for what is not known here fails with a line that says what to do."""
    with pytest.raises(UsageError, match=message) as refused:
        texts_of(dag_of([template]))
    assert "\n" not in str(refused.value)


def test_a_date_that_is_needed_is_asked_for() -> None:
    """Without a logical date there is no ``ds``; the message says which option gives one."""
    with pytest.raises(UsageError, match=r"'ds' is undefined.*give --logical-date"):
        texts_of(dag_of(["{{ ds }}"]), given=None)
    assert texts_of(dag_of(["{{ run_id }}"]), given=None) == ["manual__by_hand"]


def test_params_are_checked() -> None:
    """A param of the wrong type is refused as in the trigger form."""
    assert texts_of(dag_of(["{{ params.region }}"]), conf={"region": "us"}) == ["us"]
    with pytest.raises(UsageError, match="Invalid input for param region: 5 is not of type 'string'"):
        texts_of(dag_of(["{{ params.region }}"]), conf={"region": 5})
