"""An S3 client from an Airflow connection: roles, profiles and endpoints as in the amazon provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException

from airflow_batchkit.connectors.object_storage.errors import s3_errors
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.hooks.lookup import defined_connection

if TYPE_CHECKING:
    from airflow_batchkit.engine.policies import Timeouts

_AWS_DEFAULT = "aws_default"


def s3_client(conn_id: str, timeouts: Timeouts) -> Any:
    """Make a client; call it in the Airflow thread only.

    :param conn_id: the connection. Where nobody defined ``aws_default``, the machine's own credentials serve.
    :param timeouts: ``connect`` and ``read`` hold for every request; nothing is retried here.
    :raises UsageError: nobody defined the connection, or it does not make a client.
    :raises TransientError: its role could not be assumed now.
    """
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.config import Config

    if conn_id != _AWS_DEFAULT:
        # The hook itself would go on with whatever credentials the machine has.
        defined_connection(conn_id)
    limits = Config(
        connect_timeout=timeouts.connect.total_seconds(),
        read_timeout=timeouts.read.total_seconds(),
        retries={"total_max_attempts": 1, "mode": "standard"},
        # Conditional writes are refused with older signatures.
        signature_version="s3v4",
    )
    hook = S3Hook(aws_conn_id=conn_id)
    try:
        with s3_errors(f"opening of connection {conn_id}"):
            given = hook.conn_config.botocore_config
            return hook.get_client_type(config=limits if given is None else given.merge(limits))
    except (ValueError, TypeError, NotImplementedError, AirflowException) as error:
        message = f"connection {conn_id!r} makes no S3 client: {type(error).__name__}: {error}"
        raise UsageError(message) from error
