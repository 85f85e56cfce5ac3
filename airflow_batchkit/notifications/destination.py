"""Where alerts go: a channel through Slack's Web API, or an incoming webhook with a channel of its own."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_batchkit.engine.exceptions import UsageError

DEFAULT_API_CONN_ID = "slack_api_default"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackDestination:
    """One channel.

    :param conn_id: Airflow connection of type ``slack`` or ``slackwebhook``.
    :param channel: for the Web API; None for a webhook.
    """

    conn_id: str
    channel: str | None

    @property
    def is_webhook(self) -> bool:
        """Whether the connection is an incoming webhook."""
        return self.channel is None


def chosen_destination(
    *, channel: str | None, slack_conn_id: str | None, slack_webhook_conn_id: str | None
) -> SlackDestination:
    """Tell from the parameters which of the two ways is meant.

    :param channel: channel for the Web API.
    :param slack_conn_id: connection for the Web API. Default ``slack_api_default``.
    :param slack_webhook_conn_id: connection of an incoming webhook.
    :raises UsageError: both ways are meant, or neither.
    """
    if slack_webhook_conn_id is None:
        if not channel:
            raise UsageError("say where alerts go: channel='#…' (Web API), or slack_webhook_conn_id='…'")
        return SlackDestination(conn_id=slack_conn_id or DEFAULT_API_CONN_ID, channel=channel)
    if slack_conn_id is not None or channel is not None:
        raise UsageError(
            "an incoming webhook has a channel of its own: give slack_webhook_conn_id alone, "
            "or channel (and slack_conn_id) for the Web API"
        )
    return SlackDestination(conn_id=slack_webhook_conn_id, channel=None)
