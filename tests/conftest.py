"""Fixtures that every test may ask for: the real servers, started once per test run and only if asked for."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.airflow import make_database, prepare_environment
from tests.support.certificates import Authority
from tests.support.elasticsearch import ElasticsearchEndpoint, ElasticsearchServer
from tests.support.elasticsearch_access import LEAST
from tests.support.elasticsearch_distribution import VERSION_8, MissingError
from tests.support.fault_table import FAULT
from tests.support.postgres import MissingError as MissingPostgresError, PostgresServer
from tests.support.processes import unavailable
from tests.support.s3 import S3Server, moto_server
from tests.support.slack import SlackServer
from tests.support.standalone import AirflowStandalone
from tests.support.versitygw import program as versitygw_program, versitygw_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


prepare_environment()
_SLOW_FIRST = ("faults", "integration")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders of long tests: the short ones then fill up the processes evenly."""

    def place(item: pytest.Item) -> int:
        folders = item.path.parts
        return next((n for n, name in enumerate(_SLOW_FIRST) if name in folders), len(_SLOW_FIRST))

    items.sort(key=place)
    for item in items:
        # Reports carry these from the process that ran the test to the one that counts.
        item.user_properties += [
            (FAULT, (mark.args[0], mark.kwargs["at"])) for mark in item.iter_markers(FAULT)
        ]


def _started(server: ElasticsearchServer) -> ElasticsearchServer:
    try:
        server.start()
    except MissingError as missing:
        unavailable(str(missing))
    return server


@pytest.fixture(scope="session")
def elasticsearch_server() -> Iterator[ElasticsearchEndpoint]:
    """Give the Elasticsearch that tests share: each uses index names of its own."""
    url = os.environ.get("BATCHKIT_TEST_ELASTICSEARCH_URL")
    if url:
        yield ElasticsearchEndpoint(url.rstrip("/"))
        return
    server = ElasticsearchServer()
    try:
        yield _started(server)
    finally:
        server.stop()


@pytest.fixture(scope="session")
def elasticsearch_8_server() -> Iterator[ElasticsearchEndpoint]:
    """Give an Elasticsearch of the previous major version that tests share."""
    server = ElasticsearchServer(version=VERSION_8, heap="384m")
    try:
        yield _started(server)
    finally:
        server.stop()


@pytest.fixture(scope="session")
def secured_elasticsearch_server() -> Iterator[ElasticsearchServer]:
    """Give an Elasticsearch that asks who is there, over https, with a certificate for ``localhost``."""
    certificate = Authority().issue(["localhost"])
    server = ElasticsearchServer(
        certificate=certificate,
        users={"reader": ["reader"], "stranger": []},
        roles={"reader": {"indices": [{"names": ["secured-*"], "privileges": LEAST}]}},
        heap="384m",
    )
    try:
        yield _started(server)
    finally:
        server.stop()


@pytest.fixture
def new_elasticsearch_server() -> Iterator[Callable[..., ElasticsearchServer]]:
    """Start nodes of a test's own, which it may kill and restart; takes what ElasticsearchServer takes."""
    servers: list[ElasticsearchServer] = []

    def new(**settings: object) -> ElasticsearchServer:
        servers.append(ElasticsearchServer(**settings))  # type: ignore[arg-type] # checked by ElasticsearchServer
        return _started(servers[-1])

    yield new
    for server in servers:
        server.stop()


def _started_postgres(server: PostgresServer) -> PostgresServer:
    try:
        server.start()
    except MissingPostgresError as missing:
        unavailable(str(missing))
    return server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Give the PostgreSQL that tests share: each uses a database of its own."""
    server = PostgresServer()
    try:
        yield _started_postgres(server)
    finally:
        server.stop()


@pytest.fixture
def new_postgres_server() -> Iterator[Callable[..., PostgresServer]]:
    """Start servers of a test's own, which it may kill and restart; takes what PostgresServer takes."""
    servers: list[PostgresServer] = []

    def new(**settings: Any) -> PostgresServer:
        servers.append(PostgresServer(**settings))
        return _started_postgres(servers[-1])

    yield new
    for server in reversed(servers):
        server.stop()


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """Give an empty database that goes when the test ends."""
    name = postgres_server.new_database()
    yield name
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give the S3 API that tests share: each uses a bucket of its own."""
    folder, versitygw = tmp_path_factory.mktemp("s3"), versitygw_program()
    with moto_server(folder) if versitygw is None else versitygw_server(versitygw, folder) as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> Iterator[str]:
    """Give an empty bucket that goes, with what it holds, when the test ends."""
    name = f"test-{secrets.token_hex(6)}"
    with s3_server.client() as client:
        client.create_bucket(Bucket=name)
    yield name
    s3_server.empty(name)


@pytest.fixture
def slack_server() -> Iterator[SlackServer]:
    """Give a Slack of the test's own, empty and listening."""
    with SlackServer() as server:
        yield server


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Make the metadata database that :func:`tests.support.airflow.run_dag` needs."""
    make_database()


@pytest.fixture(scope="session")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowStandalone]:
    """Give the real Airflow that tests share; it runs the DAG files of ``tests/dags``."""
    home = tmp_path_factory.mktemp("standalone")
    no_dags = shutil.ignore_patterns("test_*", "__pycache__")
    dags = shutil.copytree(Path(__file__).parent / "dags", home / "dags", ignore=no_dags)
    server = AirflowStandalone(home, dags)
    try:
        server.start()
        yield server
    finally:
        server.stop()
