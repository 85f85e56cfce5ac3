"""An S3 client for the command line: boto3's own environment, a connection's keys, the URL's address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_batchkit.cli.airflow_connections import AirflowConnection, airflow_connection
from airflow_batchkit.cli.s3_urls import s3_account
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.hooks.switches import as_optional_text

if TYPE_CHECKING:
    from airflow_batchkit.engine.policies import Timeouts

# They say who one is: passed over, something would be written under the wrong name.
_NOT_HERE = ("role_arn", "assume_role_method", "assume_role_kwargs", "session_kwargs")
_CONFIG = ("s3", "request_checksum_calculation", "response_checksum_validation")


def s3_client(name: str, timeouts: Timeouts) -> Any:
    """Make a client; what neither URL nor connection says is boto3's own choice.

    :param name: of the account, as :func:`~airflow_batchkit.cli.s3_urls.s3_name` gives it.
    :param timeouts: ``connect`` and ``read`` hold for every request; nothing is retried here.
    :raises UsageError: the environment lacks something, or holds what makes no client.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    account = s3_account(name)
    connection = AirflowConnection() if account.conn_id is None else airflow_connection(account.conn_id)
    settings = connection_settings(connection)
    config, profile = settings.pop("config"), settings.pop("profile_name")
    for given in ("endpoint_url", "region_name"):
        settings[given] = getattr(account, given) or settings[given]
    if account.addressing_style is not None:
        config["s3"] = {**config.get("s3", {}), "addressing_style": account.addressing_style}
    limits: dict[str, Any] = {
        "connect_timeout": timeouts.connect.total_seconds(),
        "read_timeout": timeouts.read.total_seconds(),
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        # Conditional writes are refused with older signatures.
        "signature_version": "s3v4",
    }
    try:
        session: Any = boto3 if profile is None else boto3.Session(profile_name=profile)
        return session.client("s3", config=Config(**config, **limits), **settings)
    except (BotoCoreError, ValueError) as error:
        raise UsageError(f"these AWS settings make no S3 client: {error}") from error


def connection_settings(connection: AirflowConnection) -> dict[str, Any]:
    """Return what boto3's client takes from a connection, ``config`` and ``profile_name`` besides.

    :raises UsageError: the connection wants what only Airflow's own hook does.
    """
    for name in _NOT_HERE:
        if connection.extra.get(name):
            raise UsageError(
                f"the connection's extra {name!r} is not read by the command line; "
                "put the role into a profile of ~/.aws/config, and name it as profile_name"
            )
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region_name", "profile_name")
    extra = {name: as_optional_text(connection.extra.get(name)) for name in names}
    given = _table(connection, "config_kwargs")
    of_service = _table(connection, "service_config").get("s3", {})
    return {
        **extra,
        "aws_access_key_id": connection.login or extra["aws_access_key_id"],
        "aws_secret_access_key": connection.password or extra["aws_secret_access_key"],
        "endpoint_url": as_optional_text(
            of_service.get("endpoint_url") or connection.extra.get("endpoint_url")
        ),
        "verify": _verify(connection.extra.get("verify")),
        "config": {name: given[name] for name in _CONFIG if name in given},
    }


def _table(connection: AirflowConnection, name: str) -> dict[str, Any]:
    found = connection.extra.get(name) or {}
    if not isinstance(found, dict):
        raise UsageError(f"the connection's extra {name!r} must be a JSON object")
    return found


def _verify(value: Any) -> bool | str | None:
    text = as_optional_text(value)
    return {"true": None, "false": False}.get(text.lower(), text) if text else None
