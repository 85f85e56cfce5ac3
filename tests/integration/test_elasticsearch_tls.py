"""Certificates and credentials, right and wrong: each mistake is one line that says what to do."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.elasticsearch import ElasticsearchSource
from airflow_batchkit.engine.exceptions import BatchkitError, TransientError, UsageError
from tests.support.certificates import Authority
from tests.support.copying import Copying, last_line
from tests.support.elasticsearch_access import LEAST, new_key, trusted
from tests.support.elasticsearch_folder import PASSWORD
from tests.support.elasticsearch_reading import make_index, opened, put_all, read_all

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchEndpoint, ElasticsearchServer

pytestmark = pytest.mark.elasticsearch

SECRETS = ("dG9tYXRvOnBhcHJpa2E=", "not-the-password")


@pytest.fixture
def index(secured_elasticsearch_server: ElasticsearchServer) -> Iterator[str]:
    """Give an index of ten documents."""
    name = f"secured-{secrets.token_hex(4)}"
    make_index(secured_elasticsearch_server, name)
    put_all(secured_elasticsearch_server, name, {str(number): {"n": number} for number in range(10)})
    yield name
    secured_elasticsearch_server.request("DELETE", f"/{name}")


@pytest.fixture
def key(secured_elasticsearch_server: ElasticsearchServer, index: str) -> str:
    """Give an API key with the least privileges on that index."""
    return new_key(secured_elasticsearch_server, {index: LEAST}).encoded


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """Something set wrong.

    :param settings: of the endpoint, instead of what is right.
    :param said: in the line that tells of it.
    :param error: what the engine makes of it.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    said: str
    error: type[BatchkitError] = UsageError


MISTAKES = {
    "wrong key": Mistake(settings={"api_key": SECRETS[0]}, said="401"),
    "wrong password": Mistake(
        settings={"api_key": None, "username": "reader", "password": SECRETS[1]}, said="401"
    ),
    "no credentials": Mistake(settings={"api_key": None}, said="check the connection's API key"),
    "authority not trusted": Mistake(settings={"ca_certs": None}, said="set the connection's ca_certs"),
    "wrong host name": Mistake(
        settings={"hosts": ("https://127.0.0.1:{port}",)}, said="use a host name that its certificate is for"
    ),
    "wrong fingerprint": Mistake(
        settings={"ca_certs": None, "fingerprint": "AB:" * 31 + "AB"},
        said="set the connection's fingerprint to that of the server's certificate",
    ),
    "plain http to a port that speaks https": Mistake(
        settings={"hosts": ("http://localhost:{port}",), "ca_certs": None},
        said="does it speak https?",
        error=TransientError,
    ),
    "https to a port that speaks plain http": Mistake(
        settings={"hosts": ("https://127.0.0.1:{plain_port}",)}, said="it speaks plain http there"
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(  # noqa: PLR0917 - fixtures
    secured_elasticsearch_server: ElasticsearchServer,
    elasticsearch_server: ElasticsearchEndpoint,
    index: str,
    key: str,
    tmp_path: Path,
    mistake: Mistake,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The engine raises, and the command ends with, one line that names the place and no secret."""
    server = secured_elasticsearch_server
    ports = {"port": server.port, "plain_port": elasticsearch_server.url.rpartition(":")[2]}
    settings = {"hosts": (server.url,), "ca_certs": str(server.ca_certs), "api_key": key, **mistake.settings}
    settings["hosts"] = tuple(host.format(**ports) for host in settings["hosts"])

    with (
        pytest.raises(mistake.error) as caught,
        opened(ElasticsearchSource(index=index), trusted(server, **settings)),
    ):
        pass
    done = Copying(tmp_path, as_environment(settings))(
        f"elasticsearch+{settings['hosts'][0]}/{index}", f"file://{tmp_path}/out"
    )

    told = last_line(done, exit_code=2 if mistake.error is UsageError else 1)
    for line in (str(caught.value), told):
        assert mistake.said in line
        assert index in line
    assert not any(secret in told + done.stderr + caplog.text for secret in (*SECRETS, key))
    assert "BEGIN CERTIFICATE" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 4, done.stderr
    assert not (tmp_path / "out").exists()


def as_environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of the command for settings of an endpoint."""
    given = {name: value for name, value in settings.items() if name != "hosts" and value is not None}
    return {f"BATCHKIT_ELASTICSEARCH_{name.upper()}": str(value) for name, value in given.items()}


def test_a_fingerprint_stands_for_authority_and_name(
    secured_elasticsearch_server: ElasticsearchServer, index: str, key: str
) -> None:
    """The certificate's own fingerprint is trusted by itself, also under an address that it is not for."""
    server = secured_elasticsearch_server
    endpoint = trusted(
        server,
        hosts=(f"https://127.0.0.1:{server.port}",),
        ca_certs=None,
        fingerprint=server.fingerprint,
        api_key=key,
    )
    with opened(ElasticsearchSource(index=index), endpoint) as source:
        assert len(read_all(source)) == 10


def test_a_user_and_a_password_get_in(
    secured_elasticsearch_server: ElasticsearchServer, index: str, tmp_path: Path
) -> None:
    """The command exports with user, password and the authority's certificate."""
    server = secured_elasticsearch_server
    settings = {"ca_certs": server.ca_certs, "username": "reader", "password": PASSWORD}
    done = Copying(tmp_path, as_environment(settings))(
        f"elasticsearch+{server.url}/{index}", f"file://{tmp_path}/out"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_an_expired_key_is_refused(secured_elasticsearch_server: ElasticsearchServer, index: str) -> None:
    """A key whose time is over is one line, like a wrong one."""
    key = new_key(secured_elasticsearch_server, {index: LEAST}, expiration="1ms")
    time.sleep(0.01)  # the server compares with its clock, in milliseconds
    with (
        pytest.raises(UsageError, match=r"401 .*check the connection's API key"),
        opened(
            ElasticsearchSource(index=index),
            trusted(secured_elasticsearch_server, api_key=key.encoded),
        ),
    ):
        pass


def test_another_authority_is_not_trusted(
    secured_elasticsearch_server: ElasticsearchServer, index: str, key: str, tmp_path: Path
) -> None:
    """A certificate that somebody else signed is refused, whatever name it bears."""
    stranger = tmp_path / "stranger.crt"
    stranger.write_bytes(Authority("somebody else").certificate)
    endpoint = trusted(secured_elasticsearch_server, ca_certs=str(stranger), api_key=key)
    with (
        pytest.raises(UsageError, match="no trusted TLS connection"),
        opened(ElasticsearchSource(index=index), endpoint),
    ):
        pass
