"""Sending a message to Slack through Airflow's Slack hooks: a few seconds at most, a few tries at most.

Imported when there is something to send, never while a DAG is parsed.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from airflow.providers.slack.hooks.slack import SlackHook
from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from slack_sdk.http_retry.request import HttpRequest
    from slack_sdk.http_retry.response import HttpResponse
    from slack_sdk.http_retry.state import RetryState

    from airflow_batchkit.notifications.destination import SlackDestination
    from airflow_batchkit.notifications.rendering import Message

REQUEST_SECONDS = 5
# Airflow ends callbacks in a task's process after [core] task_success_overtime, by default 20 s.
TOTAL_SECONDS = 15
MAX_TRIES = 2
MAX_RETRY_AFTER = 5

TOO_MANY_REQUESTS = 429


def send(destination: SlackDestination, message: Message) -> None:
    """Send a message.

    :param destination: where to.
    :param message: what.
    :raises TimeoutError: Slack takes too long, whatever it does.
    :raises AirflowException: no such connection, or the webhook refuses.
    :raises SlackApiError: the Web API refuses.
    """
    if destination.is_webhook:
        webhook = SlackWebhookHook(
            slack_webhook_conn_id=destination.conn_id,
            timeout=REQUEST_SECONDS,
            retry_handlers=[_BriefPatience(max_retry_count=MAX_TRIES - 1)],
        )
        # Airflow is asked for the connection here: only the request to Slack moves into another thread.
        _ = webhook.client
        _in_time(lambda: webhook.send_dict(_webhook_body(message)))
        return
    api = SlackHook(
        slack_conn_id=destination.conn_id,
        timeout=REQUEST_SECONDS,
        retry_handlers=[_BriefPatience(max_retry_count=MAX_TRIES - 1)],
    )
    _ = api.client
    _in_time(lambda: api.call("chat.postMessage", json=_api_body(destination, message)))


async def send_async(destination: SlackDestination, message: Message) -> None:
    """Send a message from an event loop; parameters and errors as for :func:`send`."""
    patience: list[Any] = [_AsyncBriefPatience(max_retry_count=MAX_TRIES - 1)]
    async with asyncio.timeout(TOTAL_SECONDS):
        if destination.is_webhook:
            webhook = SlackWebhookHook(
                slack_webhook_conn_id=destination.conn_id, timeout=REQUEST_SECONDS, retry_handlers=patience
            )
            await webhook.async_send_dict(_webhook_body(message))
        else:
            api = SlackHook(
                slack_conn_id=destination.conn_id, timeout=REQUEST_SECONDS, retry_handlers=patience
            )
            await api.async_call("chat.postMessage", json=_api_body(destination, message))


def _api_body(destination: SlackDestination, message: Message) -> dict[str, Any]:
    return {
        "channel": destination.channel,
        "text": message.text,
        "blocks": message.blocks,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _webhook_body(message: Message) -> dict[str, Any]:
    return {"text": message.text, "blocks": message.blocks, "unfurl_links": False, "unfurl_media": False}


def _in_time(request: Callable[[], object]) -> None:
    """Make a request in a daemon thread: a server that sends a byte at a time never meets a read timeout."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            request()
        except BaseException as error:  # noqa: BLE001  # raised again below, in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=run, name="batchkit-alert", daemon=True)
    thread.start()
    thread.join(TOTAL_SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"Slack did not take the message within {TOTAL_SECONDS} s")
    if failed:
        raise failed[0]


def _asks_for_a_short_wait(response: HttpResponse | None) -> bool:
    if response is None or response.status_code != TOO_MANY_REQUESTS:
        return False
    values = [value for name, value in response.headers.items() if name.lower() == "retry-after"]
    seconds = values[0][0] if values and values[0] else "1"
    return seconds.isdecimal() and int(seconds) <= MAX_RETRY_AFTER


class _BriefPatience(RateLimitErrorRetryHandler):
    """Waits as long as Slack's 429 asks, unless that is too long for a callback."""

    @override
    def _can_retry(
        self,
        *,
        state: RetryState,
        request: HttpRequest,
        response: HttpResponse | None = None,
        error: Exception | None = None,
    ) -> bool:
        return _asks_for_a_short_wait(response)


class _AsyncBriefPatience(AsyncRateLimitErrorRetryHandler):
    """The same on an event loop."""

    @override
    async def _can_retry_async(
        self,
        *,
        state: RetryState,
        request: HttpRequest,
        response: HttpResponse | None = None,
        error: Exception | None = None,
    ) -> bool:
        return _asks_for_a_short_wait(response)
