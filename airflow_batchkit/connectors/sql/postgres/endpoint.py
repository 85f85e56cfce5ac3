"""Connections to PostgreSQL: TLS verified, our timeouts, nothing from a connection's extras unread."""

from __future__ import annotations

import ipaddress
import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.values import Value

if TYPE_CHECKING:
    from psycopg import Connection

    from airflow_batchkit.engine.policies import Timeouts

#: What a connection's extras may say, each by its name.
TEXT_SETTINGS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "target_session_attrs")
DEFAULT_PORT = 5432
APPLICATION_NAME = "airflow-batchkit"
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_KEEPALIVES = 3


@dataclass(frozen=True, kw_only=True, repr=False)
class PostgresEndpoint(Value):
    """Where a PostgreSQL is and how to get in; the ``repr`` shows no secret.

    What is None is left to libpq, which looks into its own environment variables (``PGUSER``,
    ``PGPASSWORD``, ``PGPASSFILE``, ``PGSSLROOTCERT``, …) and files.

    :param host: name or address, several separated by commas; a path is the folder of a Unix socket.
    :param port: Default 5432.
    :param database: its name.
    :param user: who asks.
    :param password: the user's.
    :param sslmode: as libpq names it. Default: ``PGSSLMODE``; else ``verify-full``, and for this machine
        itself (a Unix socket, ``localhost``, a loopback address) ``prefer``.
    :param sslrootcert: file with the certificates to trust, or ``system``.
    :param sslcert: file with the client's certificate.
    :param sslkey: file with the key of the client's certificate.
    :param target_session_attrs: which of several hosts will do, for example ``prefer-standby``.
    """

    host: str
    port: int = DEFAULT_PORT
    database: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    sslmode: str | None = None
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    target_session_attrs: str | None = None

    @override
    def check(self) -> None:
        """Refuse what no server can be reached with.

        :raises UsageError: which setting is missing or unknown.
        """
        if not self.host:
            raise UsageError("a PostgreSQL connection needs a host")
        if not self.database:
            raise UsageError("a PostgreSQL connection needs the name of a database")
        if self.sslmode is not None and self.sslmode not in _SSL_MODES:
            raise UsageError(f"sslmode={self.sslmode!r}: must be one of {', '.join(_SSL_MODES)}")

    @property
    def tls(self) -> str | None:
        """The ``sslmode`` to ask for, None where libpq's own variable says it."""
        if self.sslmode is not None or os.environ.get("PGSSLMODE"):
            return self.sslmode
        here = all(_is_this_machine(host.strip()) for host in self.host.split(","))
        return "prefer" if here else "verify-full"


def connect(endpoint: PostgresEndpoint, timeouts: Timeouts) -> Connection[Any]:
    """Open a connection that another thread may use.

    What psycopg raises is left to :mod:`airflow_batchkit.connectors.sql.errors`.

    :param timeouts: ``connect`` for each host, ``read`` until a silent network counts as broken.
    :raises UsageError: the driver is not installed.
    """
    try:
        import psycopg
    except ImportError as error:
        raise UsageError(
            "PostgreSQL is read with psycopg, which is missing: pip install 'airflow-batchkit[postgres]'"
        ) from error
    read = timeouts.read.total_seconds()
    settings: dict[str, Any] = {
        "host": endpoint.host,
        "port": endpoint.port,
        "dbname": endpoint.database,
        "user": endpoint.user,
        "password": endpoint.password,
        "sslmode": endpoint.tls,
        "sslrootcert": endpoint.sslrootcert,
        "sslcert": endpoint.sslcert,
        "sslkey": endpoint.sslkey,
        "target_session_attrs": endpoint.target_session_attrs,
    }
    return psycopg.connect(
        autocommit=True,
        application_name=APPLICATION_NAME,
        client_encoding="UTF8",
        connect_timeout=math.ceil(timeouts.connect.total_seconds()),
        # A peer that vanished without a word is noticed within `read`, whether we wait or send.
        tcp_user_timeout=math.ceil(read * 1000),
        keepalives_idle=math.ceil(read / 2),
        keepalives_interval=math.ceil(read / 2 / _KEEPALIVES),
        keepalives_count=_KEEPALIVES,
        **{name: value for name, value in settings.items() if value is not None},
    )


def _is_this_machine(host: str) -> bool:
    if host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
