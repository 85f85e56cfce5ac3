"""From an incident to a Slack message: readable, within Slack's limits, harmless whatever an error says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_batchkit.engine.values import plain

if TYPE_CHECKING:
    from airflow_batchkit.notifications.incident import Incident
    from airflow_batchkit.notifications.standing import Standing

MAX_SECTION = 3000
MAX_HEADER = 150
MAX_ERROR = 900
MAX_FACT = 200
_CUT = " … left out … "
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# Slack obeys `<!channel>` only, which escaping stops; clients and bots that link bare names would obey these.
_MENTION = re.compile(r"@(?=channel\b|here\b|everyone\b)", re.IGNORECASE)
_HAPPENED = {
    "task_failed": "failed",
    "run_failed": "the run failed",
    "deadline_missed": "is late",
    "run_missing": "did not run",
    "success_too_old": "has not succeeded for too long",
    "still_failed": "failed and has not succeeded since",
    "stuck_queued": "is stuck in the queue",
    "runs_too_long": "runs too long",
    "dag_paused": "is paused",
    "dag_gone": "is not in Airflow",
    "import_error": "cannot be imported",
    "part_down": "is down",
    "airflow_unreachable": "does not answer",
    "airflow_refuses": "does not let the watch in",
}
_OVER = {
    "run_missing": "runs again",
    "success_too_old": "has succeeded",
    "still_failed": "has succeeded since",
    "stuck_queued": "has left the queue",
    "runs_too_long": "is not running any more",
    "dag_paused": "is no longer paused",
    "dag_gone": "is in Airflow again",
    "import_error": "can be imported again",
    "part_down": "is up again",
    "airflow_unreachable": "answers again",
    "airflow_refuses": "lets the watch in again",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent to Slack.

    :param text: the whole message in short, for notifications and screen readers.
    :param blocks: the message as Block Kit lays it out.
    """

    text: str
    blocks: list[dict[str, Any]]


def render(incident: Incident, standing: Standing | None = None) -> Message:
    """Write a message.

    :param incident: what happened.
    :param standing: how far the job was.
    """
    title = fit(headline(incident), MAX_HEADER)
    facts = [
        (label, fit(" ".join(fact.split()), MAX_ERROR if label == "Error" else MAX_FACT))
        for label, fact in _facts(incident, standing)
        if fact
    ]
    links = _links(incident)
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": title}},
        _section("\n".join(f"*{label}:* {fact}" for label, fact in facts)),
    ]
    if incident.stack_trace:
        blocks.append(_section(f"```\n{_code(incident.stack_trace)}\n```"))
    if links:
        blocks.append(_section(" · ".join(f"<{_url(url)}|{label}>" for label, url in links)))
    lines = [
        title,
        *(f"{label}: {fact}" for label, fact in facts),
        *(f"{label}: {_url(url)}" for label, url in links),
    ]
    return Message(text="\n".join(lines), blocks=blocks)


def headline(incident: Incident) -> str:
    """Say in a few words what happened, to what; not escaped."""
    if incident.over:
        return f"All clear: {_subject(incident)} {_OVER[incident.kind]}"
    return f"{_subject(incident)} {_HAPPENED[incident.kind]}"


def fit(text: str, limit: int) -> str:
    """Escape a text for Slack and cut its middle out where it is longer than allowed.

    :param text: as it came; secrets that Airflow knows are masked.
    :param limit: characters after escaping.
    """
    pieces = [_ENTITIES.get(character, character) for character in _clean(text)]
    if sum(map(len, pieces)) <= limit:
        return "".join(pieces)
    room = limit - len(_CUT)
    return _taken(pieces, room // 2) + _CUT + _taken(pieces[::-1], room // 2, backwards=True)


def _taken(pieces: list[str], room: int, *, backwards: bool = False) -> str:
    taken: list[str] = []
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            break
        taken.append(piece)
    return "".join(reversed(taken) if backwards else taken)


def _subject(incident: Incident) -> str:
    if incident.subject is not None:
        return incident.subject
    # A missed deadline is the run's, also where the message points to one of its tasks.
    if incident.task_id is None or incident.kind != "task_failed":
        return incident.dag_id
    mapped = "" if incident.map_index is None else f"[{incident.map_index}]"
    return f"{incident.dag_id}.{incident.task_id}{mapped}"


def _facts(incident: Incident, standing: Standing | None) -> list[tuple[str, str | None]]:
    error: str | None = ": ".join(part for part in (incident.error_type, incident.error_message) if part)
    if incident.kind == "task_failed" and not error:
        error = "none is known: the process was killed, ran out of memory, or its worker was lost"
    trial = None if incident.try_number is None else str(incident.try_number)
    if trial is not None and incident.tries is not None:
        trial += f" of {incident.tries}"
    return [
        ("Error", error),
        ("Where it stands", None if standing is None else standing.line),
        ("Cursor", None if standing is None else standing.cursor),
        ("Environment", incident.environment),
        ("Run", incident.run_id),
        ("Logical date", incident.logical_date),
        ("Last task" if incident.kind == "run_failed" else "Task", incident.task_id),
        ("Try", trial),
        ("Reason", incident.reason),
        ("Deadline", incident.deadline),
        ("State of the run", incident.run_state),
        *incident.facts,
    ]


def _links(incident: Incident) -> list[tuple[str, str]]:
    links = (("Log of the task", incident.log_url), ("Run" if incident.run_id else "DAG", incident.run_url))
    return [(label, url) for label, url in links if url]


def _section(text: str) -> dict[str, Any]:
    # Verbatim: Slack itself makes no mention or link of a name or an address in the text.
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _code(text: str) -> str:
    # Three backticks would end the code block early.
    return fit(text.replace("```", "'''"), MAX_SECTION - len("```\n\n```"))


def _url(url: str) -> str:
    return "".join(_ENTITIES.get(character, character) for character in url).replace("|", "%7C")


def _clean(text: str) -> str:
    """Mask secrets, passwords in URLs, and names that would call everybody."""
    from airflow.providers.common.compat.sdk import redact

    masked = str(redact(plain(text)))
    return _MENTION.sub("@\u200b", masked)
