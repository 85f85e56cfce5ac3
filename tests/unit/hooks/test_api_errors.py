"""Errors of Airflow's API are told apart by what a running job can do about them."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import (
    BatchkitError,
    PermanentError,
    SupersededError,
    TransientError,
    UsageError,
)
from airflow_batchkit.hooks.api_errors import translate

GONE = {"detail": {"reason": "not_found", "message": "Task instance 0198 not found"}}
ARCHIVED = {"detail": {"message": "Task Instance not found, it may have been moved to the … History table"}}


def api_error(status: int | None, detail: dict[str, Any] | None = None) -> Exception:
    """Make what the task runner raises for an error that the supervisor passes on."""
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    return AirflowRuntimeError(
        ErrorResponse(
            error=ErrorType.API_SERVER_ERROR,
            detail={"status_code": status, "message": "Server returned error", "detail": detail},
        )
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (api_error(404, GONE), SupersededError),
        (api_error(410, ARCHIVED), SupersededError),
        (api_error(404, {"detail": "Not Found"}), TransientError),
        (api_error(409, {"detail": "busy"}), TransientError),
        (api_error(413, {"detail": "too large"}), PermanentError),
        (api_error(507, {"detail": "full"}), TransientError),
        (api_error(500), TransientError),
        (api_error(503, {"detail": "starting"}), TransientError),
        (api_error(None), TransientError),
        (api_error(403, {"detail": "Forbidden"}), PermanentError),
        (api_error(422, {"detail": [{"msg": "too long"}]}), PermanentError),
        (BrokenPipeError(), TransientError),
        (EOFError("Request socket closed before length"), TransientError),
        (PermissionError("denied for variable"), PermanentError),
    ],
)
def test_errors_are_classed(error: BaseException, expected: type[BatchkitError]) -> None:
    """Gone is superseded, refused is permanent, everything else may work next time; the cause is kept."""
    translated = translate(error, what="save of the checkpoint")
    assert type(translated) is expected
    assert str(translated).startswith("save of the checkpoint: ")
    assert "\n" not in str(translated)
    assert translated.__cause__ is error


@pytest.mark.parametrize("error", [ValueError("no"), UsageError("no"), KeyboardInterrupt()])
def test_other_errors_stay_themselves(error: BaseException) -> None:
    """What does not come from Airflow's API keeps its type."""
    assert translate(error, what="save") is error
