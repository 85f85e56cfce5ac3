"""A sign of life: where it may go, what becomes of its secret, and that it never hurts."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator

import pytest

from airflow_batchkit.engine.exceptions import TransientError, UsageError
from airflow_batchkit.notifications import ping as ping_module
from airflow_batchkit.notifications.ping import SuccessPing, check_ping_url, ping
from airflow_batchkit.notifications.slack import slack_alerts
from tests.support.airflow import run_dag
from tests.support.airflow_answers import AirflowAnswers
from tests.support.processes import free_port

SECRET = "5f1c-secret-of-the-check"


@pytest.fixture
def switch() -> Iterator[AirflowAnswers]:
    """Give a dead man's switch that says OK, as any server of the tests can be told to."""
    with AirflowAnswers() as server:
        yield server


def test_a_ping_asks_for_the_address(switch: AirflowAnswers) -> None:
    """Once, with all of its path."""
    switch.planned.append((200, {}, b"OK"))
    ping(f"{switch.url}/{SECRET}?run=1")

    assert switch.asked == [f"/{SECRET}?run=1"]


@pytest.mark.parametrize(
    "url", ["https://hc.example/x", "http://127.0.0.1:1/x", "http://localhost/x", "http://[::1]/"]
)
def test_https_or_loopback(url: str) -> None:
    """These may be pinged."""
    check_ping_url(url)


@pytest.mark.parametrize(
    "url",
    ["http://hc.example/s3cr3t", "ftp://hc.example/s3cr3t", "s3cr3t", "", "https://", "https://[s3cr3t"],
)
def test_everything_else_is_refused_without_repeating_it(url: str) -> None:
    """The secret does not go over the network in the clear, nor into the message."""
    with pytest.raises(UsageError, match="must be an https:// URL") as refused:
        check_ping_url(url)
    assert "s3cr3t" not in str(refused.value)


def test_a_redirect_is_followed_on_the_same_host_only(switch: AirflowAnswers) -> None:
    """Another host must not learn the address."""
    switch.planned.extend([(302, {"Location": f"/{SECRET}/ok"}, b""), (200, {}, b"")])
    ping(f"{switch.url}/{SECRET}")
    assert switch.asked == [f"/{SECRET}", f"/{SECRET}/ok"]

    with AirflowAnswers() as elsewhere:
        switch.planned.append((302, {"Location": f"{elsewhere.url}/{SECRET}"}, b""))
        with pytest.raises(TransientError, match="status 302"):
            ping(f"{switch.url}/{SECRET}")
        assert elsewhere.asked == []


def test_what_fails_is_said_without_the_address(
    switch: AirflowAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad status, a closed port, and a server that says nothing within the time."""
    monkeypatch.setattr(ping_module, "PING_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        addresses = (
            (f"{switch.url}/{SECRET}", "status 404"),
            (f"http://127.0.0.1:{free_port()}/{SECRET}", "did not answer: ConnectionRefusedError"),
            (f"http://127.0.0.1:{silent.getsockname()[1]}/{SECRET}", "did not answer: TimeoutError"),
        )
        for url, message in addresses:
            began = time.monotonic()
            with pytest.raises(TransientError, match=message) as failed:
                ping(url)
            assert SECRET not in repr(failed.value)
            assert failed.value.__context__ is None
            assert time.monotonic() - began < 2


def test_the_address_may_lie_in_airflow(switch: AirflowAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a Variable, or as the password of a connection: then no DAG file holds it."""
    url = f"{switch.url}/{SECRET}"
    monkeypatch.setenv("AIRFLOW_VAR_PING_ORDERS", url)
    monkeypatch.setenv("AIRFLOW_CONN_PING_ORDERS", json.dumps({"conn_type": "http", "password": url}))
    switch.planned.extend([(200, {}, b"")] * 3)

    for address in (url, "variable:ping_orders", "connection:ping_orders"):
        SuccessPing(address)({})

    assert switch.asked == [f"/{SECRET}"] * 3


@pytest.mark.parametrize(
    "address",
    ["variable:missing", "connection:missing", "variable:in_the_clear", f"http://127.0.0.1:1/{SECRET}"],
)
def test_a_callback_never_fails(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What goes wrong is one line in the log, without the address."""
    monkeypatch.setenv("AIRFLOW_VAR_IN_THE_CLEAR", f"http://hc.example/{SECRET}")
    with caplog.at_level(logging.WARNING, logger=ping_module.__name__):
        SuccessPing(address)({})

    (line,) = [record for record in caplog.records if record.name == ping_module.__name__]
    assert line.getMessage().startswith("no sign of life sent: ")
    assert SECRET not in line.getMessage()


def test_it_is_wired_by_one_argument() -> None:
    """At the DAG: a run has succeeded when all of it has. Its repr shows nothing."""
    alerts = slack_alerts(channel="#data", ping_url=f"https://hc.example/{SECRET}")

    assert isinstance(alerts["on_success_callback"], SuccessPing)
    assert SECRET not in repr(alerts)
    assert "on_success_callback" not in slack_alerts(channel="#data")
    with pytest.raises(UsageError, match="must be an https:// URL"):
        slack_alerts(channel="#data", ping_url="http://hc.example/x")


@pytest.mark.airflow
@pytest.mark.usefixtures("airflow_database")
def test_a_run_that_succeeded_pings(switch: AirflowAnswers) -> None:
    """Airflow calls back once for the whole run, and not at all for one that failed."""
    from airflow.sdk import DAG, task

    def dag(name: str, *, fails: bool) -> DAG:
        with DAG(name, schedule=None, **slack_alerts(channel="#data", ping_url=f"{switch.url}/x")) as made:

            @task(on_failure_callback=None)
            def work() -> None:
                """Fail, or not."""
                if fails:
                    raise ValueError("no")

            work()
        made.on_failure_callback = None
        return made

    switch.planned.append((200, {}, b""))
    assert run_dag(dag("pinged", fails=False)).state == "success"
    assert run_dag(dag("not_pinged", fails=True)).state == "failed"

    assert switch.asked == ["/x"]
