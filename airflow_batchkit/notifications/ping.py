"""A sign of life after a success: whoever waits for it (a dead man's switch) speaks up when it stays away.

The address is the secret that lets one say "all is well": it is masked, and no message holds it.
"""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from ipaddress import ip_address
from typing import IO, Any
from urllib.parse import urlsplit

from typing_extensions import override

from airflow_batchkit.engine.exceptions import TransientError, UsageError

PING_SECONDS = 5.0
_VARIABLE = "variable:"
_CONNECTION = "connection:"

_log = logging.getLogger(__name__)


class SuccessPing:
    """Pings an address when a run has succeeded: ``DAG(…, on_success_callback=SuccessPing("variable:x"))``.

    It runs where Airflow calls back and never fails or holds up anything: 5 s, and a failure is logged.

    :param address: ``https://…``; or, so that it stands in no DAG file, ``variable:NAME`` of an Airflow
        Variable, or ``connection:ID`` of a connection whose password it is.
    :raises UsageError: not https, and not on loopback.
    """

    def __init__(self, address: str) -> None:
        if not address.startswith((_VARIABLE, _CONNECTION)):
            check_ping_url(address)
        self._address = address

    def __call__(self, _context: Mapping[str, Any]) -> None:
        """Ping; what goes wrong is logged."""
        try:
            ping(self._url())
        except (UsageError, TransientError) as error:
            _log.warning("no sign of life sent: %s", error)
        except Exception as error:  # noqa: BLE001  # logged; a ping must not change what becomes of a run
            # The text of an error of Airflow's may hold what was looked up.
            _log.warning("no sign of life sent: its address could not be read: %s", type(error).__name__)

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"

    def _url(self) -> str:
        from airflow.providers.common.compat.sdk import BaseHook, Variable, mask_secret

        if self._address.startswith(_VARIABLE):
            url = str(Variable.get(self._address.removeprefix(_VARIABLE)))
        elif self._address.startswith(_CONNECTION):
            url = BaseHook.get_connection(self._address.removeprefix(_CONNECTION)).password or ""
        else:
            url = self._address
        mask_secret(url)
        check_ping_url(url)
        return url


def check_ping_url(url: str) -> None:
    """Refuse an address that would send its secret over the network in the clear.

    :param url: the address; it is not repeated in the message.
    :raises UsageError: not https, and not on loopback.
    """
    try:
        parts = urlsplit(url)
        trusted = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))
    except ValueError:
        parts, trusted = urlsplit(""), False
    if not trusted or not parts.hostname:
        raise UsageError("the address to ping must be an https:// URL (http:// only on loopback)")


def ping(url: str) -> None:
    """Ask for an address with GET, for 5 seconds at most; what is answered does not matter.

    :param url: as :func:`check_ping_url` allows it.
    :raises TransientError: no success was answered; the message does not hold the address.
    """
    opener = urllib.request.build_opener(_SameHost())
    try:
        opener.open(url, timeout=PING_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
        failure = TransientError(f"the address to ping answered with status {error.code}")
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        failure = TransientError(f"the address to ping did not answer: {type(reason).__name__}")
    else:
        return
    # Outside of the except: the cause's text may hold the address.
    raise failure


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Another host must not learn the address."""

    @override
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False
