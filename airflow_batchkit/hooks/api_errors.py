"""What an error of Airflow's API means to a running job."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    SupersededError,
    TransientError,
)

_REFUSED = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,  # a proxy's limit for what is stored: no later try is smaller
    HTTPStatus.UNPROCESSABLE_ENTITY,
}
_GONE = {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}


def translate(error: BaseException, *, what: str) -> BaseException:
    """Return the engine's word for an error of an Airflow call; errors of another kind come back as they are.

    :param error: what the call raised.
    :param what: what the call was for.
    """
    from airflow.sdk.api.client import ServerResponseError
    from airflow.sdk.exceptions import AirflowRuntimeError

    if isinstance(error, BatchkitError):
        return error
    if isinstance(error, AirflowRuntimeError):
        detail = error.error.detail or {}
        return caused(_by_status(detail.get("status_code"), detail, error.error.error.value, what), error)
    if isinstance(error, ServerResponseError):  # in ``dag.test()`` no supervisor stands between
        return caused(_by_status(error.response.status_code, error.detail, "API_SERVER_ERROR", what), error)
    if isinstance(error, PermissionError):
        return caused(PermanentError(f"{what}: Airflow denies access ({error})"), error)
    if isinstance(error, ConnectionError | EOFError | TimeoutError):
        message = f"{what}: the connection to Airflow's supervisor is gone ({type(error).__name__})"
        return caused(TransientError(message), error)
    return error


def caused(error: BatchkitError, cause: BaseException) -> BatchkitError:
    """Return the error with its cause, as ``raise … from`` would."""
    error.__cause__ = cause
    return error


def _by_status(status: int | None, detail: Any, kind: str, what: str) -> BatchkitError:
    said = json.dumps(detail, default=str)
    if status in _GONE and "task instance" in said.lower():
        return SupersededError(
            f"{what}: Airflow does not know this task instance any more (cleared, retried or deleted)"
        )
    if status in _REFUSED or kind == "PERMISSION_DENIED":
        return PermanentError(f"{what}: Airflow's API refused it ({status or kind}): {_reason(detail)}")
    return TransientError(f"{what}: Airflow's API failed ({status or kind}): {_reason(detail)}")


def _reason(detail: Any) -> str:
    while isinstance(detail, dict) and isinstance(
        inner := detail.get("detail") or detail.get("message"), dict | str
    ):
        detail = inner
    return str(detail)[:200].replace("\n", " ")
