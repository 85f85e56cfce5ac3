"""A request to stop: the first stands, and waiting ends with it."""

from __future__ import annotations

import threading
import time

import pytest

from airflow_batchkit.engine.exceptions import StoppedError
from airflow_batchkit.engine.stop import Stop


def test_nobody_asked() -> None:
    """Then nothing is raised and a wait takes its time."""
    stop = Stop()

    stop.raise_if_asked()
    assert stop.asked is None
    assert stop.wait(0.01) is False


def test_the_first_request_stands() -> None:
    """A second signal does not change why and for how long."""
    stop = Stop()
    stop.ask("deploy", 30.0)
    stop.ask("again", 5.0)

    assert stop.asked == "deploy"
    with pytest.raises(StoppedError) as caught:
        stop.raise_if_asked()
    assert (caught.value.reason, caught.value.resume_after) == ("deploy", 30.0)


def test_a_wait_ends_with_the_request() -> None:
    """At once when it was made before, soon when it comes from another thread."""
    stop = Stop()
    threading.Timer(0.05, stop.ask, args=("deploy",)).start()
    began = time.monotonic()

    assert stop.wait(30) is True
    assert stop.wait(30) is True
    assert time.monotonic() - began < 2
