"""What ``batchkit watch`` reads from its file and from the environment."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_batchkit.cli.watch_config import endpoint_of, read_config
from airflow_batchkit.engine.exceptions import UsageError

CONFIG = """
airflow_url = "https://airflow.example"
environment = "production"
slack_channel = "#data-alerts"
settle = "0s"
maintenance = ["Sun 02:00-04:00 Europe/Berlin"]

[[watch]]
dags = ["orders"]
max_age = "26h"
maintenance = ["2026-12-24 22:00-06:00 UTC"]

[[watch]]
tags = ["hourly"]
grace = "5m"
max_queued = "10m"
max_running = "1d"
allow_paused = true
"""


def write(folder: Path, text: str) -> Path:
    """Write a file and return it."""
    file = folder / "watch.toml"
    file.write_text(text)
    return file


def test_a_file_holds_several_jobs(tmp_path: Path) -> None:
    """Each table is one job; what stands above holds for all, and for Airflow's own parts."""
    expectations = read_config(write(tmp_path, CONFIG)).expectations()
    first, second = expectations.watched

    assert expectations.settle == timedelta(0)
    assert expectations.airflow.maintenance == ("Sun 02:00-04:00 Europe/Berlin",)
    assert first.ids == ["orders"]
    assert first.limits.max_age == timedelta(hours=26)
    assert first.limits.grace == timedelta(minutes=15)
    assert first.maintenance == ("Sun 02:00-04:00 Europe/Berlin", "2026-12-24 22:00-06:00 UTC")
    assert second.tags == ("hourly",)
    assert second.allow_paused
    assert (second.limits.grace, second.limits.max_running) == (timedelta(minutes=5), timedelta(days=1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[watch]]\nmax_agee = '26h'", "max_agee"),
        ("[[watch]]\ndags = 'orders'", "Expected `array`"),
        ("watch = [", "--config"),
    ],
)
def test_a_file_with_a_slip_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """A setting that does not exist is not left unread."""
    with pytest.raises(UsageError, match=message):
        read_config(write(tmp_path, text))


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    """The message names it."""
    with pytest.raises(UsageError, match=r"cannot read .*none.toml"):
        read_config(tmp_path / "none.toml")
    file = tmp_path / "watch.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"watch\.toml"):
        read_config(file)


def test_a_duration_that_is_none(tmp_path: Path) -> None:
    """The message says which setting."""
    config = read_config(write(tmp_path, "[[watch]]\nmax_age = 'a day'"))
    with pytest.raises(UsageError, match="max_age: 'a day' is not a duration"):
        config.expectations()


def test_the_way_in_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, token, user and password, each in a variable of its own; an option for the address wins."""
    monkeypatch.setenv("AIRFLOW_API_URL", "https://a.example")
    monkeypatch.setenv("AIRFLOW_API_TOKEN", "t0ken")
    assert endpoint_of(None, None).token == "t0ken"
    assert endpoint_of("https://b.example/", None).base == "https://b.example"

    monkeypatch.delenv("AIRFLOW_API_TOKEN")
    monkeypatch.setenv("AIRFLOW_API_USERNAME", "watch")
    monkeypatch.setenv("AIRFLOW_API_PASSWORD", "w4tch")
    assert endpoint_of(None, None).username == "watch"


def test_the_way_in_is_in_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the other variables do not count."""
    monkeypatch.setenv("AIRFLOW_API_TOKEN", "not-this-one")
    stored = {"conn_type": "http", "extra": {"token": "t0ken", "ca_certs": "/etc/ca.pem"}}
    monkeypatch.setenv("AIRFLOW_CONN_WATCH", json.dumps(stored))

    endpoint = endpoint_of("https://a.example", "watch")

    assert (endpoint.token, endpoint.username, endpoint.ca_certs) == ("t0ken", None, "/etc/ca.pem")


def test_without_an_address_the_message_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """By option or by variable."""
    monkeypatch.delenv("AIRFLOW_API_URL", raising=False)
    with pytest.raises(UsageError, match="--airflow-url URL, or set AIRFLOW_API_URL"):
        endpoint_of(None, None)
