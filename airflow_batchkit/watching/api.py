"""Airflow's REST API, read with the standard library: from wherever this package is installed."""

from __future__ import annotations

import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

import msgspec
from typing_extensions import override

from airflow_batchkit.engine.exceptions import BatchkitError, UsageError

REQUEST_SECONDS = 10.0
TOTAL_SECONDS = 120.0
PAGE = 100
_TRIES = 3
_PAUSE_SECONDS = 1.0
_MAX_BYTES = 64 * 1024 * 1024
_PIECE = 64 * 1024
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY = 401, 403, 404, 429


class UnreachableError(BatchkitError):
    """Airflow gave no answer, or one that makes no sense."""


class RefusedError(BatchkitError):
    """Airflow does not let us in, or not there."""


class NotThereError(BatchkitError):
    """Airflow does not know what was asked for."""


@dataclass(frozen=True, kw_only=True)
class AirflowEndpoint:
    """Where Airflow is and how to get in. Its ``repr`` shows no secret.

    :param url: base of the API server, ``https://airflow.example`` (without ``/api/v2``).
    :param token: a JWT that Airflow issued; None where there is a user, or nobody is asked.
    :param username: who asks, instead of a token.
    :param password: of that user.
    :param ca_certs: file with the certificates to trust. Default: those of the system.
    :raises UsageError: the address is none, or the parts contradict each other.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca_certs: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if "@" in parts.netloc:
            raise UsageError("the address of Airflow holds a user or a password; give them apart from it")
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise UsageError(
                f"the address of Airflow is {self.url!r}; write for example https://airflow.example"
            )
        if self.token and self.username:
            raise UsageError("Airflow: give a token, or a user and a password, not both")
        if bool(self.username) != bool(self.password):
            raise UsageError("Airflow: a user and a password belong together")

    @property
    def base(self) -> str:
        """The address without a slash at its end."""
        return self.url.rstrip("/")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect, to a login page or another host, is no answer; the token must not follow it."""

    @override
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


class AirflowApi:
    """Asks Airflow, one request after the other; every wait is bounded.

    :param endpoint: where it is.
    :param request_seconds: limit of one request. Default 10.
    :param total_seconds: limit of all requests together. Default 120.
    :raises UsageError: the file of certificates cannot be read.
    """

    def __init__(
        self,
        endpoint: AirflowEndpoint,
        *,
        request_seconds: float = REQUEST_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self.endpoint = endpoint
        self._request_seconds = request_seconds
        self._deadline = time.monotonic() + total_seconds
        self._total_seconds = total_seconds
        self._token = endpoint.token
        try:
            context = ssl.create_default_context(cafile=endpoint.ca_certs)
        except OSError as error:
            raise UsageError(f"Airflow: cannot read the certificates {endpoint.ca_certs!r}") from error
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), _NoRedirects()
        )

    def get(self, path: str, parameters: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Return a JSON object.

        :param path: below ``/api/v2``, with its leading slash, quoted.
        :param parameters: of the query; a list is repeated.
        :raises UnreachableError: no answer within the limits, or none that Airflow would give.
        :raises RefusedError: 401 or 403.
        :raises NotThereError: 404.
        """
        if self._token is None and self.endpoint.username is not None:
            self._token = self._log_in()
        query = f"?{urlencode(parameters, doseq=True)}" if parameters else ""
        return self._answer("GET", f"/api/v2{path}{query}")

    def pages(
        self, path: str, name: str, parameters: Mapping[str, object] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Return all entries of a list, page by page.

        :param path: as for :meth:`get`.
        :param name: under which the answer holds its entries.
        :param parameters: of the query.
        """
        seen = 0
        while True:
            answer = self.get(path, {**(parameters or {}), "limit": PAGE, "offset": seen})
            entries = answer.get(name)
            if not isinstance(entries, list):
                raise UnreachableError(f"{self.endpoint.base}: what answers is not Airflow's API")
            yield from entries
            seen += len(entries)
            if not entries or seen >= answer.get("total_entries", 0):
                return

    def _log_in(self) -> str:
        credentials = {"username": self.endpoint.username, "password": self.endpoint.password}
        token = self._answer("POST", "/auth/token", msgspec.json.encode(credentials)).get("access_token")
        if not isinstance(token, str):
            raise UnreachableError(f"{self.endpoint.base}/auth/token: the answer holds no token")
        return token

    def _answer(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        where = f"{self.endpoint.base}{path.partition('?')[0]}"
        for tries in range(1, _TRIES + 1):
            try:
                return self._ask(method, path, body)
            except urllib.error.HTTPError as error:
                error.close()
                failure = _refusal(error.code, where)
                again = error.code >= 500 or error.code == _TOO_MANY  # noqa: PLR2004  # all of the server's own
            except (OSError, HTTPException) as error:
                failure, again = UnreachableError(f"{where}: {_said(error)}"), True
            except msgspec.DecodeError:
                failure, again = UnreachableError(f"{where}: what answers is not Airflow's API"), False
            if not again or tries == _TRIES or self._left() <= _PAUSE_SECONDS * tries:
                break
            time.sleep(_PAUSE_SECONDS * tries)
        # Outside of the except: the cause's text may hold what the server was sent.
        raise failure

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        left = self._left()
        if left <= 0:
            raise TimeoutError(f"all requests together took more than {self._total_seconds:g} s")
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        elif self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(  # noqa: S310  # http or https: the endpoint checks it
            self.endpoint.base + path, data=body, method=method, headers=headers
        )
        ends = time.monotonic() + min(left, self._request_seconds)
        with self._opener.open(request, timeout=min(left, self._request_seconds)) as answer:
            return msgspec.json.decode(_whole(answer, ends), type=dict[str, Any])

    def _left(self) -> float:
        return self._deadline - time.monotonic()


def _whole(answer: Any, ends: float) -> bytes:
    """Read an answer piece by piece: one that dribbles never meets the socket's own timeout."""
    pieces: list[bytes] = []
    size = 0
    while piece := answer.read1(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > _MAX_BYTES:
            raise OSError(f"the answer is longer than {_MAX_BYTES:,} bytes")
        if time.monotonic() > ends:
            raise TimeoutError("the answer did not end in time")
    return b"".join(pieces)


def _refusal(status: int, where: str) -> UnreachableError | RefusedError | NotThereError:
    if status == _UNAUTHORIZED:
        return RefusedError(f"{where}: status 401: the token or the password is not taken (any more)")
    if status == _FORBIDDEN:
        return RefusedError(f"{where}: status 403: this user may not read that")
    if status == _NOT_FOUND:
        return NotThereError(f"{where}: status 404")
    return UnreachableError(f"{where}: status {status}")


def _said(error: OSError | HTTPException) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({reason.verify_message})"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return " ".join(str(reason).split()) or type(reason).__name__
