"""Reads Airflow's ``AIRFLOW_CONN_<ID>`` variables without importing Airflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from airflow_batchkit.engine.exceptions import UsageError


@dataclass(frozen=True, kw_only=True)
class AirflowConnection:
    """What one variable holds. Its ``repr`` shows neither password nor extras.

    :param login: user, or AWS access key id.
    :param password: password, or AWS secret access key.
    :param extra: everything else, by name.
    """

    login: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


def variable_of(conn_id: str) -> str:
    """Return the name of the environment variable that holds a connection."""
    return f"AIRFLOW_CONN_{conn_id.upper()}"


def airflow_connection(conn_id: str) -> AirflowConnection:
    """Read a connection from the environment, in Airflow's JSON or URI form.

    :raises UsageError: there is no such variable, or it cannot be read; what it holds is never repeated.
    """
    variable = variable_of(conn_id)
    stored = os.environ.get(variable)
    if not stored:
        raise UsageError(f"conn_id={conn_id}: the environment variable {variable} is not set")
    try:
        return _from_json(stored) if stored.lstrip().startswith("{") else _from_uri(stored)
    except ValueError:
        # From None: the cause's text may hold the password.
        raise UsageError(f"{variable} is neither a connection's JSON nor its URI") from None


class _Stored(msgspec.Struct):
    login: str | None = None
    password: str | None = None
    extra: dict[str, Any] | str | None = None


def _from_json(stored: str) -> AirflowConnection:
    found = msgspec.json.decode(stored, type=_Stored)
    extra = found.extra
    if isinstance(extra, str):
        extra = msgspec.json.decode(extra, type=dict[str, Any]) if extra.strip() else {}
    return AirflowConnection(login=found.login, password=found.password, extra=extra or {})


def _from_uri(stored: str) -> AirflowConnection:
    parts = urlsplit(stored)
    if not parts.scheme:
        raise ValueError(stored)
    extra: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "__extra__" in extra:
        extra = msgspec.json.decode(extra["__extra__"], type=dict[str, Any])
    return AirflowConnection(
        login=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
        extra=extra,
    )
