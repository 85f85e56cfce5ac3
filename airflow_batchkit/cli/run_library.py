"""Airflow as a library: its DAGs, templates and configuration, but no database, server or log of its own."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def airflow_as_a_library() -> Iterator[None]:
    """Keep Airflow from writing anything outside a temporary folder, for the time of a ``with`` block.

    Must come before the first ``import airflow``, which reads the user's own configuration (``airflow.cfg``,
    ``AIRFLOW__…``) and keeps what is set here instead.
    """
    with tempfile.TemporaryDirectory(prefix="batchkit-run-") as folder:
        before = dict(os.environ)
        os.environ.update(_settings(Path(folder)))
        try:
            with _quiet():
                yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _settings(folder: Path) -> dict[str, str]:
    return {
        # A path that cannot be opened: what asks for the database fails, and nothing is made or changed.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/no-database/airflow.db",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACKS": "True",
        "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH": "100",
        # What is said while Airflow is imported, before its handlers can be taken off.
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{folder}/logs",
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "False",
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "",
        "AIRFLOW__METRICS__STATSD_ON": "False",
        "AIRFLOW__METRICS__OTEL_ON": "False",
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Import Airflow, and let its log lines go where all others go: shown with ``--verbose`` only."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    import airflow.sdk  # noqa: F401  # imported for what it does to logging
    import structlog

    task_log = logging.getLogger("airflow.task")
    root.handlers, task_handlers, task_log.handlers = [logging.NullHandler()], task_log.handlers, []
    root.setLevel(logging.WARNING)
    configured = structlog.get_config()
    structlog.configure(
        processors=[_as_standard_log],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**configured)
        root.handlers, task_log.handlers = handlers, task_handlers
        root.setLevel(level)


def _as_standard_log(
    _logger: Any, _method: str, event: Mapping[str, Any]
) -> tuple[tuple[str], dict[str, Any]]:
    return (str(event.get("event", "")),), {"exc_info": event.get("exc_info")}
