"""Where alerts go."""

from __future__ import annotations

import pytest

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.notifications.destination import SlackDestination, chosen_destination


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        (("#ops", None, None), SlackDestination(conn_id="slack_api_default", channel="#ops")),
        (("#ops", "mine", None), SlackDestination(conn_id="mine", channel="#ops")),
        ((None, None, "hook"), SlackDestination(conn_id="hook", channel=None)),
    ],
)
def test_the_parameters_choose_the_way(
    given: tuple[str | None, str | None, str | None], chosen: SlackDestination
) -> None:
    """A channel means the Web API, a webhook's connection means the webhook."""
    channel, api, webhook = given

    assert chosen_destination(channel=channel, slack_conn_id=api, slack_webhook_conn_id=webhook) == chosen


@pytest.mark.parametrize(
    "given", [(None, None, None), (None, "mine", None), ("#ops", None, "hook"), (None, "a", "b")]
)
def test_contradictions_are_refused_at_once(given: tuple[str | None, str | None, str | None]) -> None:
    """Who names both ways, or neither, hears of it while the DAG is parsed."""
    channel, api, webhook = given
    with pytest.raises(UsageError, match="slack_webhook_conn_id"):
        chosen_destination(channel=channel, slack_conn_id=api, slack_webhook_conn_id=webhook)
