"""Asking Airflow's REST API: what is an answer, what is a refusal, and when it is left."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.watching import api as api_module
from airflow_batchkit.watching.api import (
    AirflowApi,
    AirflowEndpoint,
    NotThereError,
    RefusedError,
    UnreachableError,
)
from tests.support.airflow_answers import TOKEN, AirflowAnswers
from tests.support.certificates import Authority
from tests.support.processes import free_port

LOGIN_PAGE = b"<!doctype html><title>Sign in</title>"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "_PAUSE_SECONDS", 0.0)


@pytest.fixture
def airflow() -> Iterator[AirflowAnswers]:
    """Give an Airflow that answers what the test put into it."""
    with AirflowAnswers() as server:
        yield server


def asks(server: AirflowAnswers, **settings: str) -> AirflowApi:
    """Make an API client for it."""
    return AirflowApi(AirflowEndpoint(url=server.url, **settings))


def test_a_token_is_sent(airflow: AirflowAnswers) -> None:
    """With the right one the answer comes; without one, or with another, Airflow refuses."""
    airflow.token = TOKEN

    assert "scheduler" in asks(airflow, token=TOKEN).get("/monitor/health")
    for settings in ({}, {"token": "expired"}):
        with pytest.raises(RefusedError, match="status 401: the token or the password is not taken"):
            asks(airflow, **settings).get("/monitor/health")


def test_a_user_is_logged_in_once(airflow: AirflowAnswers) -> None:
    """User and password are exchanged for a token, which the requests that follow use."""
    airflow.token = TOKEN
    api = asks(airflow, username="watch", password="w4tch")

    api.get("/monitor/health")
    api.get("/dags")

    assert airflow.asked == ["/auth/token", "/api/v2/monitor/health", "/api/v2/dags"]
    with pytest.raises(RefusedError, match="/auth/token: status 401"):
        asks(airflow, username="watch", password="wrong").get("/dags")


def test_all_pages_of_a_list_are_read(airflow: AirflowAnswers) -> None:
    """Also where the server gives fewer entries than it was asked for."""
    airflow.page = 3
    for number in range(8):
        airflow.add_dag(f"dag_{number}")

    assert [dag["dag_id"] for dag in asks(airflow).pages("/dags", "dags")] == [f"dag_{n}" for n in range(8)]


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_what_may_pass_is_tried_again(airflow: AirflowAnswers, status: int) -> None:
    """Two bad answers are survived, three are not."""
    airflow.planned.extend([(status, {}, b"")] * 2)
    assert asks(airflow).get("/dags")["total_entries"] == 0

    airflow.planned.extend([(status, {}, b"")] * 3)
    with pytest.raises(UnreachableError, match=f"/api/v2/dags: status {status}"):
        asks(airflow).get("/dags")


def test_what_is_decided_is_not_asked_again(airflow: AirflowAnswers) -> None:
    """403 and 404 come once."""
    airflow.planned.append((403, {}, b""))
    with pytest.raises(RefusedError, match="status 403: this user may not read that"):
        asks(airflow).get("/importErrors")
    with pytest.raises(NotThereError):
        asks(airflow).get("/nothing")
    assert len(airflow.asked) == 2


def test_a_page_for_people_is_no_answer(airflow: AirflowAnswers) -> None:
    """HTML, JSON that is no object, and a redirect to a login page are told as such."""
    airflow.planned.extend([(200, {}, LOGIN_PAGE), (200, {}, b"[]"), (200, {}, b'{"dags": null}')])
    for _ in range(3):
        with pytest.raises(UnreachableError, match="what answers is not Airflow's API"):
            list(asks(airflow).pages("/dags", "dags"))


def test_a_redirect_does_not_take_the_token_along(airflow: AirflowAnswers) -> None:
    """Another host is never asked."""
    with AirflowAnswers() as elsewhere:
        airflow.planned.append((302, {"Location": f"{elsewhere.url}/api/v2/dags"}, b""))
        with pytest.raises(UnreachableError, match="status 302"):
            asks(airflow, token="secret-token").get("/dags")
        assert elsewhere.asked == []


def test_an_answer_that_does_not_fit_is_refused(
    airflow: AirflowAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log-in without a token, and an answer that would fill the memory."""
    airflow.planned.append((201, {}, b'{"token": "elsewhere"}'))
    with pytest.raises(UnreachableError, match="the answer holds no token"):
        asks(airflow, username="watch", password="w4tch").get("/dags")

    monkeypatch.setattr(api_module, "_MAX_BYTES", 10)
    with pytest.raises(UnreachableError, match="longer than 10 bytes"):
        asks(airflow).get("/dags")


def test_nobody_there() -> None:
    """A closed port is named with the reason."""
    with pytest.raises(UnreachableError, match="Connection refused"):
        AirflowApi(AirflowEndpoint(url=f"http://127.0.0.1:{free_port()}")).get("/dags")


def test_a_server_that_says_nothing_is_left() -> None:
    """Each request and all together have their limit, tries included."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = AirflowEndpoint(url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="timed out"):
            AirflowApi(endpoint, request_seconds=0.2, total_seconds=0.3).get("/dags")
        assert time.monotonic() - began < 2


def test_a_server_that_dribbles_is_left() -> None:
    """An answer that comes byte by byte meets the limit of the request."""
    ended = threading.Event()

    def dribble() -> None:
        peer, _ = server.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not ended.wait(0.02):
                peer.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=dribble, daemon=True)
        thread.start()
        endpoint = AirflowEndpoint(url=f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(UnreachableError, match=r"the answer did not end in time|all requests together"):
            AirflowApi(endpoint, request_seconds=0.3, total_seconds=0.3).get("/dags")
        ended.set()
        thread.join(timeout=5)


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    """TLS is verified, also for the token's sake; the authority to trust can be given."""
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    with AirflowAnswers(certificate=authority.issue(["localhost"]), folder=tmp_path) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        with pytest.raises(UnreachableError, match="its certificate is not trusted"):
            AirflowApi(AirflowEndpoint(url=url, token=TOKEN)).get("/dags")
        assert server.asked == []

        trusting = AirflowEndpoint(url=url, ca_certs=str(tmp_path / "ca.pem"))
        assert AirflowApi(trusting).get("/dags")["dags"] == []
    with pytest.raises(UsageError, match="cannot read the certificates"):
        AirflowApi(AirflowEndpoint(url=url, ca_certs=str(tmp_path / "none.pem")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "airflow.example"}, "write for example https://airflow.example"),
        ({"url": "ftp://airflow.example"}, "write for example https://airflow.example"),
        ({"url": "https://me:secret@airflow.example"}, "give them apart from it"),
        ({"url": "https://a", "token": "t", "username": "u", "password": "p"}, "not both"),
        ({"url": "https://a", "username": "u"}, "belong together"),
    ],
)
def test_an_endpoint_that_cannot_be_right_is_refused(settings: dict[str, str], message: str) -> None:
    """The message says what to write; a password in the address is not repeated."""
    with pytest.raises(UsageError, match=message) as refused:
        AirflowEndpoint(**settings)
    assert "secret" not in str(refused.value)


def test_an_endpoint_shows_no_secret() -> None:
    """Neither token nor password is in its repr."""
    shown = repr(AirflowEndpoint(url="https://a/", username="watch", password="w4tch"))

    assert "w4tch" not in shown
    assert "https://a/" in shown
