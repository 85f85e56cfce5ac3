"""What ``batchkit watch`` looks after, from its options or from a file with several jobs."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import msgspec

from airflow_batchkit.cli import options
from airflow_batchkit.cli.airflow_connections import AirflowConnection, airflow_connection
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.hooks.switches import as_optional_text
from airflow_batchkit.watching.api import AirflowEndpoint
from airflow_batchkit.watching.check import SETTLE, Expectations
from airflow_batchkit.watching.expectations import Limits, Watched

_PREFIX = "AIRFLOW_API_"


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[[watch]]`` table: the options of the same names."""

    dags: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    grace: str | None = None
    max_queued: str | None = None
    max_age: str | None = None
    max_running: str | None = None
    allow_paused: bool = False
    maintenance: tuple[str, ...] = ()


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole file. What stands above the tables holds for all of them."""

    airflow_url: str | None = None
    conn_id: str | None = None
    environment: str | None = None
    settle: str | None = None
    maintenance: tuple[str, ...] = ()
    any_import_error: bool = False
    slack_channel: str | None = None
    slack_conn_id: str | None = None
    slack_webhook_conn_id: str | None = None
    watch: tuple[Job, ...] = (Job(),)

    def expectations(self) -> Expectations:
        """Return it as what a check takes.

        :raises UsageError: a duration or a window cannot be read.
        """
        return Expectations(
            watched=[_watched(job, self.maintenance) for job in self.watch],
            airflow=Watched(maintenance=self.maintenance),
            settle=SETTLE if self.settle is None else _duration("settle", self.settle),
            every_import_error=self.any_import_error,
        )


def read_config(path: Path) -> Config:
    """Read a file.

    :raises UsageError: it cannot be read, or holds what is no setting.
    """
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), type=Config)
    except OSError as error:
        raise UsageError(f"--config: cannot read {str(path)!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeError) as error:
        raise UsageError(f"--config: {str(path)!r}: {error}") from error


def endpoint_of(url: str | None, conn_id: str | None) -> AirflowEndpoint:
    """Return where Airflow is and how to get in.

    :param url: its address; None for the one in ``AIRFLOW_API_URL``.
    :param conn_id: a connection in ``AIRFLOW_CONN_<ID>`` with login and password, or with ``token`` among its
        extras; None for ``AIRFLOW_API_TOKEN``, or ``…_USERNAME`` and ``…_PASSWORD``.
    :raises UsageError: the address is missing, or the environment contradicts itself.
    """
    url = url or os.environ.get(f"{_PREFIX}URL")
    if not url:
        raise UsageError(f"where is Airflow? Give --airflow-url URL, or set {_PREFIX}URL")
    connection = AirflowConnection() if conn_id is None else airflow_connection(conn_id)
    in_environment = conn_id is None
    return AirflowEndpoint(
        url=url,
        token=_variable("TOKEN") if in_environment else as_optional_text(connection.extra.get("token")),
        username=_variable("USERNAME") if in_environment else connection.login or None,
        password=_variable("PASSWORD") if in_environment else connection.password or None,
        ca_certs=_variable("CA_CERTS") or as_optional_text(connection.extra.get("ca_certs")),
    )


def _watched(job: Job, everywhere: Sequence[str]) -> Watched:
    given = {
        name: _duration(name, getattr(job, name))
        for name in ("grace", "max_queued", "max_age", "max_running")
        if getattr(job, name) is not None
    }
    return Watched(
        dags=job.dags,
        tags=job.tags,
        owners=job.owners,
        limits=Limits(**given),
        allow_paused=job.allow_paused,
        maintenance=(*everywhere, *job.maintenance),
    )


def _duration(name: str, text: str) -> timedelta:
    found = options.age_of(text)
    if found is None:
        raise UsageError(f"{name}: {text!r} is not a duration; write for example 26h, 15m or 2d")
    return found


def _variable(name: str) -> str | None:
    return os.environ.get(_PREFIX + name) or None
