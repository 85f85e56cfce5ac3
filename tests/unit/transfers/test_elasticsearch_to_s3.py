"""The transfer's arguments become source and sink; what cannot work is refused before any work."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException  # noqa: TID253  # what a task fails with
from airflow.sdk import DAG  # noqa: TID253  # renders

from airflow_batchkit import (
    BatchPolicy,
    DeadLetters,
    ElasticsearchSource,
    ElasticsearchToS3Operator,
    ErrorBudget,
    ObjectStorageSink,
    S3Settings,
    Timeouts,
)
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import holds_template


def transfer(**arguments: Any) -> ElasticsearchToS3Operator:
    """Make the operator with what it needs."""
    needed: dict[str, Any] = {
        "task_id": "export",
        "index": "orders",
        "s3_bucket": "lake",
        "s3_prefix": "orders",
    }
    return ElasticsearchToS3Operator(**(needed | arguments))


def rendered(operator: ElasticsearchToS3Operator, **context: Any) -> ElasticsearchToS3Operator:
    """Render the operator as a run does."""
    with DAG("rendering", schedule=None) as dag:
        pass
    operator.render_template_fields(context, dag.get_template_env())  # type: ignore[arg-type]  # no whole context
    return operator


def test_s3_settings_reach_the_sink_rendered() -> None:
    """Templates in settings for S3 are rendered as everywhere, and checked once they are."""
    settings = S3Settings(tags={"ds": "{{ ds }}"}, storage_class="STANDARD_IA")
    sink = rendered(transfer(s3_settings=settings), ds="2026-03-01").job("dag.export").sink
    assert isinstance(sink, ObjectStorageSink)
    assert sink.s3_settings == S3Settings(tags={"ds": "2026-03-01"}, storage_class="STANDARD_IA")
    with pytest.raises(AirflowFailException, match="letters, digits, spaces"):
        rendered(transfer(s3_settings=settings), ds="a&b")


def test_arguments_become_source_and_sink() -> None:
    """Each argument arrives where it belongs."""
    job = transfer(
        index=["b", "a"],
        query={"term": {"paid": True}},
        s3_prefix="/orders/",
        elasticsearch_conn_id="search",
        aws_conn_id="bucket",
        compression=None,
        verify_output=True,
        date_field="created_at",
        batch=BatchPolicy(max_records=7),
        timeouts=Timeouts(run=timedelta(hours=1)),
        readers=3,
    ).job("dag.export")
    assert job.source == ElasticsearchSource(
        conn_id="search", index=["b", "a"], query={"term": {"paid": True}}, date_field="created_at"
    )
    assert job.sink == ObjectStorageSink(
        url="s3://lake/orders", conn_id="bucket", compression=None, verify_output=True
    )
    assert (job.name, job.mode, job.readers) == ("dag.export", "real", 3)
    assert job.batch.max_records == 7
    assert job.timeouts.run == timedelta(hours=1)


def test_templates_are_rendered() -> None:
    """Index, query, prefix, dead letters and the switches of a trigger form may be templates."""
    operator = rendered(
        transfer(
            index="orders-{{ year }}",
            query={"range": {"day": {"gte": "{{ ds }}"}}},
            s3_bucket="{{ bucket }}",
            s3_prefix="orders/ds={{ ds }}",
            error_budget=ErrorBudget(max_dead_letters=1),
            dead_letters=DeadLetters("s3://lake/dead/{{ ds }}"),
            local="{{ local }}",
            restart="{{ restart }}",
            start_at="{{ start_at }}",
        ),
        year=2026,
        ds="2026-01-02",
        bucket="lake",
        local=True,
        restart=False,
        start_at=None,
    )
    job = operator.job("dag.export")
    assert job.source == ElasticsearchSource(
        index="orders-2026", query={"range": {"day": {"gte": "2026-01-02"}}}
    )
    assert job.sink == ObjectStorageSink(url="s3://lake/orders/ds=2026-01-02")
    assert job.dead_letters == DeadLetters("s3://lake/dead/2026-01-02")
    assert (job.local, job.start_at, job.mode) == (True, None, "local")


def test_templates_may_be_anywhere_in_a_dag_file() -> None:
    """Making the operator checks and opens nothing: a DAG file with templates is parsed on every machine."""
    assert holds_template(transfer(s3_prefix="{{ ds }}").s3_prefix)
    transfer(index="{{ x }}", s3_bucket="{{ y }}", dead_letters=DeadLetters("{{ z }}"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"s3_bucket": ""}, "s3_bucket=''"),
        ({"s3_bucket": "s3://lake"}, "s3_bucket='s3://lake'"),
        ({"index": ""}, "index"),
        ({"index": []}, "index"),
        ({"s3_prefix": "orders/{{ ds }}"}, "s3_prefix still holds a template"),
        ({"compression": "lzma"}, "compression"),
        ({"error_budget": ErrorBudget(max_dead_letters=5)}, "dead_letters"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, Any], message: str) -> None:
    """One line names the argument."""
    with pytest.raises(UsageError, match=message):
        transfer(**arguments).job("dag.export")
