"""The transfer in Airflow, from a real Elasticsearch to an S3 API, through Airflow's connections."""

from __future__ import annotations

import gzip
import itertools
import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit import ElasticsearchToS3Operator
from tests.support.airflow import run_dag
from tests.support.elasticsearch_reading import make_index, put_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import DAG

    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.s3 import S3Server

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.elasticsearch,
    pytest.mark.s3,
    pytest.mark.usefixtures("airflow_database", "connections"),
]

_number = itertools.count()


@pytest.fixture
def connections(
    elasticsearch_server: ElasticsearchEndpoint, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Define the two default connections."""
    url = elasticsearch_server.url
    search = {"conn_type": "elasticsearch", "host": url}
    monkeypatch.setenv("AIRFLOW_CONN_ELASTICSEARCH_DEFAULT", json.dumps(search))
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", s3_server.airflow_connection())
    monkeypatch.setenv("AIRFLOW__BATCHKIT__MIN_RESCHEDULE_SECONDS", "0")


@pytest.fixture
def index(elasticsearch_server: ElasticsearchEndpoint) -> str:
    """Make an index of a hundred orders over two days."""
    name = f"orders-{secrets.token_hex(4)}"
    make_index(elasticsearch_server, name, shards=2)
    put_all(
        elasticsearch_server,
        name,
        {str(number): {"at": f"2026-01-0{number % 2 + 1}", "n": number} for number in range(100)},
    )
    return name


@pytest.fixture
def said() -> list[str]:
    """Remember what the failure callbacks were told."""
    return []


@pytest.fixture
def dag(said: list[str]) -> Iterator[DAG]:
    """Give a DAG with retries that must not be used."""
    from airflow.sdk import DAG

    def note(context: Any) -> None:
        said.append(str(context["exception"]))

    arguments = {"retries": 1, "on_retry_callback": note, "on_failure_callback": note}
    with DAG(
        f"elasticsearch_to_s3_{next(_number)}",
        schedule=None,
        params={"day": "2026-01-02"},
        default_args=arguments,
    ) as dag:
        yield dag


@pytest.fixture
def export(index: str, bucket: str) -> dict[str, Any]:
    """Give arguments of an export that works."""
    return {"task_id": "export", "index": index, "s3_bucket": bucket, "s3_prefix": "orders"}


def lines(s3_server: S3Server, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """Return the published documents, found by the manifest."""
    with s3_server.client() as client:
        manifest = json.loads(client.get_object(Bucket=bucket, Key=f"{prefix}/manifest.json")["Body"].read())
        keys = [part["key"] for part in manifest["parts"]]
        bodies = [client.get_object(Bucket=bucket, Key=f"{prefix}/{key}")["Body"].read() for key in keys]
    return [json.loads(line) for body in bodies for line in gzip.decompress(body).splitlines()]


def test_one_day_is_exported(export: dict[str, Any], dag: DAG, s3_server: S3Server, said: list[str]) -> None:
    """Templates choose the day and the prefix; exactly that day's documents arrive."""
    day = {
        "query": {"range": {"at": {"gte": "{{ params.day }}", "lt": "{{ params.day }}||+1d"}}},
        "s3_prefix": "orders/ds={{ params.day }}",
    }
    ElasticsearchToS3Operator(**(export | day))
    run = run_dag(dag)
    assert (run.state, said) == ("success", [])
    found = lines(s3_server, export["s3_bucket"], "orders/ds=2026-01-02")
    assert sorted(found, key=lambda line: line["n"]) == [
        {"_id": str(number), "at": "2026-01-02", "n": number} for number in range(1, 100, 2)
    ]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"index": "there-is-no-such-index"}, "there-is-no-such-index"),
        ({"query": {"term": {"day": {"valeu": 1}}}}, "query"),
        ({"query": {"rnage": {}}}, "rnage"),
        ({"s3_bucket": "there-is-no-such-bucket"}, "there is no such bucket"),
        ({"elasticsearch_conn_id": "nowhere"}, "connection 'nowhere' is not defined"),
        ({"aws_conn_id": "nowhere"}, "connection 'nowhere' is not defined"),
    ],
)
def test_bad_input_fails_once_in_one_line(
    export: dict[str, Any], dag: DAG, said: list[str], argument: dict[str, Any], message: str
) -> None:
    """What a person has to mend is told in one line, without a retry."""
    ElasticsearchToS3Operator(**(export | argument))
    assert run_dag(dag).state == "failed"
    (line,) = said
    assert message in line
    assert "\n" not in line


def test_server_that_is_away_is_tried_again(
    export: dict[str, Any], dag: DAG, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is refused may be accepted at the next try: both tries are used."""
    away = {"conn_type": "elasticsearch", "host": "127.0.0.1", "port": 9}
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", json.dumps(away))
    ElasticsearchToS3Operator(**export, elasticsearch_conn_id="away", retry_delay=0)
    assert run_dag(dag).state == "failed"
    assert len(said) == 2
