"""The tests' own Slack takes and refuses what the real one does."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.support.slack import TOKEN, WEBHOOK_PATH, Answer, SlackServer


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _error(server: SlackServer, **message: Any) -> str:
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError

    token = message.pop("token", TOKEN)
    with pytest.raises(SlackApiError) as refused:
        WebClient(token=token, base_url=server.api_url).api_call("chat.postMessage", json=message)
    return str(refused.value.response["error"])


def test_it_keeps_what_slack_sdk_posts(slack_server: SlackServer) -> None:
    """A message by slack_sdk arrives with its channel, text and blocks."""
    from slack_sdk import WebClient

    client = WebClient(token=TOKEN, base_url=slack_server.api_url)
    client.chat_postMessage(channel="#ops", text="late", blocks=[_section("orders <https://a|log>")])

    [message] = slack_server.wait_for_messages(1)
    assert (message.by, message.channel) == ("api", "#ops")
    assert message.whole_text == "late\norders <https://a|log>"


def test_it_refuses_what_slack_refuses(slack_server: SlackServer) -> None:
    """A wrong token, 51 blocks, 3,001 characters and an empty message get Slack's own error codes."""
    assert _error(slack_server, channel="#ops", text="x", token="xoxb-other") == "invalid_auth"
    assert _error(slack_server, channel="#ops", blocks=[_section("x")] * 51, text="x") == "invalid_blocks"
    assert _error(slack_server, channel="#ops", blocks=[_section("x" * 3001)], text="x") == "invalid_blocks"
    assert _error(slack_server, channel="#ops", text=" ") == "no_text"
    assert slack_server.messages == []


def test_the_webhook_takes_a_message(slack_server: SlackServer) -> None:
    """An incoming webhook takes JSON at its secret path."""
    from slack_sdk import WebhookClient

    answer = WebhookClient(f"{slack_server.url}/services/{WEBHOOK_PATH}").send(text="done")

    assert (answer.status_code, answer.body) == (200, "ok")
    assert slack_server.messages[0].by == "webhook"


def test_it_can_be_told_to_push_back(slack_server: SlackServer) -> None:
    """A planned 429 comes with Retry-After, once; the message after it is taken."""
    slack_server.answer_next(Answer(status=429, error="ratelimited", retry_after=3))
    request = urllib.request.Request(  # noqa: S310 - the URL is the test server's own
        f"{slack_server.url}/services/{WEBHOOK_PATH}",
        data=json.dumps({"text": "late"}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=5)  # noqa: S310
    with refused.value as pushback:
        assert (pushback.status, pushback.headers["Retry-After"]) == (429, "3")

    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
        assert answer.read() == b"ok"
    assert slack_server.refusals == ["ratelimited"]
