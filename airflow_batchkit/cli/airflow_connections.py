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

    :param conn_id: the name it is asked for by.
    :param login: user, or AWS access key id.
    :param password: password, or AWS secret access key.
    :param extra: everything else, by name.
    """

    conn_id: str
    login: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def text(self, name: str) -> str | None:
        """Return one extra as text, None when it is absent or empty."""
        value = self.extra.get(name)
        return None if value in {None, ""} else str(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """Return one extra as a yes or no.

        :raises UsageError: it is neither.
        """
        value = self.extra.get(name)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        return yes_or_no(str(value), f"{variable_of(self.conn_id)}: extra {name!r}")


def variable_of(conn_id: str) -> str:
    """Return the name of the environment variable that holds a connection."""
    return f"AIRFLOW_CONN_{conn_id.upper()}"


def yes_or_no(text: str, what: str) -> bool:
    """Read a yes or no as Airflow does.

    :raises UsageError: it is neither.
    """
    word = text.strip().lower()
    if word in {"true", "t", "yes", "y", "1", "on"}:
        return True
    if word in {"false", "f", "no", "n", "0", "off"}:
        return False
    raise UsageError(f"{what} must be true or false")


def airflow_connection(conn_id: str) -> AirflowConnection:
    """Read a connection from the environment, in Airflow's JSON or URI form.

    :raises UsageError: there is no such variable, or it cannot be read; what it holds is never repeated.
    """
    variable = variable_of(conn_id)
    stored = os.environ.get(variable)
    if not stored:
        raise UsageError(f"conn_id={conn_id}: the environment variable {variable} is not set")
    try:
        return _from_json(conn_id, stored) if stored.lstrip().startswith("{") else _from_uri(conn_id, stored)
    except ValueError as error:
        # The cause's text may hold the password.
        raise UsageError(f"{variable} is neither a connection's JSON nor its URI") from _without_text(error)


class _Stored(msgspec.Struct):
    login: str | None = None
    password: str | None = None
    extra: dict[str, Any] | str | None = None


def _from_json(conn_id: str, stored: str) -> AirflowConnection:
    found = msgspec.json.decode(stored, type=_Stored)
    extra = found.extra
    if isinstance(extra, str):
        extra = msgspec.json.decode(extra, type=dict[str, Any]) if extra.strip() else {}
    return AirflowConnection(conn_id=conn_id, login=found.login, password=found.password, extra=extra or {})


def _from_uri(conn_id: str, stored: str) -> AirflowConnection:
    parts = urlsplit(stored)
    if not parts.scheme:
        raise ValueError(stored)
    extra: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "__extra__" in extra:
        extra = msgspec.json.decode(extra["__extra__"], type=dict[str, Any])
    return AirflowConnection(
        conn_id=conn_id,
        login=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
        extra=extra,
    )


def _without_text(error: Exception) -> Exception:
    return ValueError(type(error).__name__)
