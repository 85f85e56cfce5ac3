"""Servers 8 and 9 with clients 8 and 9: the suites of the source pass in every pair."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

from tests.support.client_versions import Client
from tests.support.elasticsearch_distribution import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.elasticsearch import ElasticsearchEndpoint

pytestmark = [pytest.mark.elasticsearch, pytest.mark.s3, pytest.mark.timeout(400)]

OLDEST = Client("8.10.0", "8.4.0")
NEWEST_8 = Client("8.19.3", "8.17.1")
CONTRACT = "tests/contract/test_elasticsearch_source.py"
CHANGES = "tests/integration/test_elasticsearch_source_changes.py"
EXACT = "tests/integration/test_export_exact.py"
COMMAND = "tests/integration/test_cli.py::test_copy_of_an_index_to_a_bucket"
LOST = f"{CHANGES}::test_nothing_is_lost_when_the_point_in_time_is"
RESUMED = f"{CHANGES}::test_a_new_leg_goes_on_after_the_last_window"
LITERALS = (
    f"{EXACT}::test_every_literal_arrives[file-7]",
    f"{EXACT}::test_routed_documents_with_one_id_stay_apart[file]",
)
OPERATOR = "tests/integration/test_elasticsearch_to_s3.py::test_one_day_is_exported"


@pytest.fixture(params=["8", "9"])
def server(request: pytest.FixtureRequest) -> ElasticsearchEndpoint:
    """Give a server of each major version."""
    name = "elasticsearch_8_server" if request.param == "8" else "elasticsearch_server"
    server: ElasticsearchEndpoint = request.getfixturevalue(name)
    return server


def environment(server: ElasticsearchEndpoint, client: Client | None = None) -> Mapping[str, str]:
    """Return the variables of a process that uses a server, and a client other than the installed one."""
    # An Airflow of its own, too: two processes cannot share one database.
    inherited = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name}
    path = {} if client is None else {"PYTHONPATH": str(client.folder())}
    return {**inherited, "BATCHKIT_TEST_ELASTICSEARCH_URL": server.url, **path}


def run(variables: Mapping[str, str], *arguments: str) -> str:
    """Run Python to its end and return what it said."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, text=True, timeout=300, check=False, cwd=CHECKOUT, env=variables,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def run_suites(variables: Mapping[str, str], folder: Path, *suites: str) -> None:
    """Run tests in a process of their own."""
    # What goes to S3 is the same as what goes to files, and no matter of versions.
    told = run(
        variables,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not [s3", f"--basetemp={folder / 'inner'}"),
        *suites,
    )
    assert " passed" in told
    assert " skipped" not in told, told


def test_server_8_is_version_8(elasticsearch_8_server: ElasticsearchEndpoint) -> None:
    """The older server is what it is meant to be."""
    (node,) = elasticsearch_8_server.request("GET", "/_nodes/_local/version")["nodes"].values()
    assert node["version"].startswith("8.19.")


def test_oldest_client_is_the_oldest_allowed() -> None:
    """The oldest client tested is the oldest that the package accepts."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    minor = OLDEST.elasticsearch.rpartition(".")[0]
    assert f"elasticsearch>={minor},<10" in project["dependencies"]


def test_the_installed_client_reads_server_8(
    elasticsearch_8_server: ElasticsearchEndpoint, tmp_path: Path
) -> None:
    """Contract, exact export, lost snapshot, resume and the command pass on server 8."""
    run_suites(environment(elasticsearch_8_server), tmp_path, CONTRACT, EXACT, COMMAND, LOST, RESUMED)


@pytest.mark.parametrize("client", [OLDEST, NEWEST_8], ids=lambda client: client.elasticsearch)
def test_clients_8_read_both_servers(server: ElasticsearchEndpoint, client: Client, tmp_path: Path) -> None:
    """Contract, literals, lost snapshot, resume and the command pass with clients of version 8 as well."""
    variables = environment(server, client)
    asked = "import elasticsearch, elastic_transport as t; print(elasticsearch.__versionstr__, t.__version__)"
    assert run(variables, "-c", asked).split() == [client.elasticsearch, client.transport]

    run_suites(variables, tmp_path, CONTRACT, EXACT, COMMAND, LOST, RESUMED)


@pytest.mark.airflow
def test_the_operator_exports_with_client_8(
    elasticsearch_8_server: ElasticsearchEndpoint, tmp_path: Path
) -> None:
    """The operator works in an Airflow that has the older client beside the older server."""
    run_suites(environment(elasticsearch_8_server, NEWEST_8), tmp_path, OPERATOR)
