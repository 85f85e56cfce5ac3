"""Airflow as a library leaves nothing behind, in the process either."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import structlog

from airflow_batchkit.cli.run_library import airflow_as_a_library


def test_everything_is_as_it_was() -> None:
    """Environment, log handlers and structlog's settings are put back, and the temporary folder goes."""
    before = dict(os.environ), list(logging.getLogger().handlers), structlog.get_config()
    with airflow_as_a_library():
        folder = Path(os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]).parent
        assert folder.is_dir()
        os.environ["AIRFLOW_VAR_GIVEN_HERE"] = "1"
    assert (dict(os.environ), list(logging.getLogger().handlers), structlog.get_config()) == before
    assert not folder.exists()


def test_the_database_cannot_be_made() -> None:
    """The only database that Airflow knows meanwhile has a path at which nothing can be opened."""
    with airflow_as_a_library():
        path = Path(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///"))
        assert not path.parent.exists()


def test_airflow_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    """Neither kind of Airflow's loggers prints anything; who adds a handler hears both."""
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    with airflow_as_a_library():
        logging.getLogger("airflow.models").warning("said by logging")
        structlog.get_logger(logger_name="task").warning("said by structlog", key="value")
        logging.getLogger().addHandler(handler)
        logging.getLogger("airflow.models").warning("heard from logging")
        structlog.get_logger(logger_name="task").warning("heard from structlog", key="value")
    assert heard == ["heard from logging", "heard from structlog"]
    assert capfd.readouterr() == ("", "")
