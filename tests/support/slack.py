"""A Slack for the tests, on loopback: keeps what it is sent and refuses what the real one refuses."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, cast

from typing_extensions import override

MAX_BLOCKS = 50
MAX_SECTION_CHARACTERS = 3000
MAX_HEADER_CHARACTERS = 150
TOKEN = "xoxb-test"
WEBHOOK_PATH = "T000/B000/XXXX"


@dataclass(frozen=True, kw_only=True)
class SlackMessage:
    """One message that was accepted, by ``chat.postMessage`` or by the incoming webhook."""

    by: str
    channel: str | None
    text: str
    blocks: list[dict[str, Any]] = field(default_factory=list)
    thread_ts: str | None = None

    @property
    def whole_text(self) -> str:
        """The text and every text inside the blocks, one below the other."""
        return "\n".join([self.text, *_texts(self.blocks)])


@dataclass(frozen=True, kw_only=True)
class Answer:
    """
    What Slack answers instead of taking a message.

    :param status: HTTP status; 429 is Slack's way to say slow down
    :param error: the API's error code (with status 200) or the webhook's text
    :param retry_after: seconds for the ``Retry-After`` header; no header where None
    :param after: seconds that pass before the answer
    """

    status: int = 200
    error: str = "internal_error"
    retry_after: int | None = None
    after: float = 0.0


class SlackServer:
    """A loopback Slack; start it as a context manager."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._closing = threading.Event()
        self._messages: list[SlackMessage] = []
        self._answers: deque[Answer] = deque()
        self._refusals: list[str] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.slack = self  # type: ignore[attr-defined] # how http.server hands state to its handlers
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening and let go of every answer that waits."""
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=5)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def api_url(self) -> str:
        """The ``base_url`` of a Slack API connection."""
        return f"{self.url}/api/"

    @property
    def messages(self) -> list[SlackMessage]:
        """What was accepted so far, oldest first."""
        with self._arrived:
            return list(self._messages)

    @property
    def refusals(self) -> list[str]:
        """The error codes that were answered so far, oldest first."""
        with self._arrived:
            return list(self._refusals)

    def api_connection(self) -> str:
        """Return the value of ``AIRFLOW_CONN_SLACK_API_DEFAULT`` that leads Airflow here."""
        extra = {"base_url": self.api_url}
        return json.dumps({"conn_type": "slack", "password": TOKEN, "extra": extra})

    def webhook_connection(self) -> str:
        """Return the value of ``AIRFLOW_CONN_SLACK_DEFAULT`` that leads Airflow to the webhook here."""
        host = f"{self.url}/services"
        return json.dumps({"conn_type": "slackwebhook", "host": host, "password": WEBHOOK_PATH})

    def answer_next(self, *answers: Answer) -> None:
        """Answer the next requests so, one answer each, and take no message from them."""
        with self._arrived:
            self._answers.extend(answers)

    def clear(self) -> None:
        """Forget all messages, refusals and planned answers."""
        with self._arrived:
            self._messages.clear()
            self._refusals.clear()
            self._answers.clear()

    def wait_for_messages(self, count: int, *, seconds: float = 10) -> list[SlackMessage]:
        """Return the messages as soon as there are ``count``; raise AssertionError when time is up."""
        with self._arrived:
            enough = self._arrived.wait_for(lambda: len(self._messages) >= count, timeout=seconds)
            assert enough, f"{len(self._messages)} of {count} messages after {seconds:g} s; {self._refusals=}"
            return list(self._messages)

    def planned_answer(self) -> Answer | None:
        """Take the answer that is planned for the request at hand, after the time that it takes."""
        with self._arrived:
            answer = self._answers.popleft() if self._answers else None
        if answer is not None:
            self._closing.wait(answer.after)
        return answer

    def keep(self, message: SlackMessage) -> None:
        """Record an accepted message and wake up who waits for it."""
        with self._arrived:
            self._messages.append(message)
            self._arrived.notify_all()

    def keep_refusal(self, error: str) -> None:
        """Record that a request was refused."""
        with self._arrived:
            self._refusals.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take a message for the API's ``chat.postMessage`` or for the webhook."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        by_webhook = self.path == f"/services/{WEBHOOK_PATH}"
        planned = self._slack.planned_answer()
        if planned is not None:
            self._refuse(planned, by_webhook=by_webhook)
            return
        payload = self._payload(body)
        error = (self._wrong_address() if not by_webhook else None) or _refusal(
            payload, by_webhook=by_webhook
        )
        if error:
            self._refuse(Answer(error=error, status=400 if by_webhook else 200), by_webhook=by_webhook)
            return
        self._slack.keep(
            SlackMessage(
                by="webhook" if by_webhook else "api",
                channel=payload.get("channel"),
                text=payload.get("text") or "",
                blocks=payload.get("blocks") or [],
                thread_ts=payload.get("thread_ts"),
            )
        )
        accepted = {
            "ok": True,
            "channel": payload.get("channel"),
            "ts": f"{len(self._slack.messages)}.000100",
        }
        self._send(200, "ok" if by_webhook else json.dumps(accepted))

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the messages are kept, the refusals too."""

    @property
    def _slack(self) -> SlackServer:
        return cast("SlackServer", self.server.slack)  # type: ignore[attr-defined] # set by SlackServer

    def _payload(self, body: bytes) -> dict[str, Any]:
        if self.headers.get("Content-Type", "").startswith("application/json"):
            payload: dict[str, Any] = json.loads(body)
            return payload
        fields: dict[str, Any] = dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
        if isinstance(fields.get("blocks"), str):
            fields["blocks"] = json.loads(fields["blocks"])
        return fields

    def _wrong_address(self) -> str | None:
        if self.path != "/api/chat.postMessage":
            return "unknown_method"
        if "Authorization" not in self.headers:
            return "not_authed"
        return None if self.headers["Authorization"] == f"Bearer {TOKEN}" else "invalid_auth"

    def _refuse(self, answer: Answer, *, by_webhook: bool) -> None:
        self._slack.keep_refusal("ratelimited" if answer.status == 429 else answer.error)
        text = answer.error if by_webhook else json.dumps({"ok": False, "error": answer.error})
        self._send(answer.status, text, retry_after=answer.retry_after)

    def _send(self, status: int, text: str, *, retry_after: int | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if text.startswith("{") else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(body)


def _refusal(payload: dict[str, Any], *, by_webhook: bool) -> str | None:
    """Return the error code with which Slack refuses a message; None where it takes it."""
    blocks = payload.get("blocks") or []
    if isinstance(blocks, str):
        blocks = json.loads(blocks)
    if not by_webhook and not payload.get("channel"):
        return "channel_not_found"
    if not (payload.get("text") or "").strip() and not blocks:
        return "no_text"
    if len(blocks) > MAX_BLOCKS or not all(_is_valid(block) for block in blocks):
        return "invalid_blocks"
    return None


def _is_valid(block: dict[str, Any]) -> bool:
    limit = MAX_HEADER_CHARACTERS if block.get("type") == "header" else MAX_SECTION_CHARACTERS
    return "type" in block and all(0 < len(text) <= limit for text in _texts([block]))


def _texts(node: object) -> list[str]:
    """Return the text of every text object inside some blocks."""
    if isinstance(node, list):
        return [text for part in node for text in _texts(part)]
    if not isinstance(node, dict):
        return []
    if node.get("type") in {"mrkdwn", "plain_text"} and isinstance(node.get("text"), str):
        return [node["text"]]
    return [text for part in node.values() for text in _texts(part)]
