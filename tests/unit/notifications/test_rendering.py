"""From an incident to a Slack message."""

from __future__ import annotations

import dataclasses
import html
from typing import get_args

import pytest

from airflow_batchkit.notifications.incident import Incident, Kind
from airflow_batchkit.notifications.rendering import (
    MAX_HEADER,
    MAX_SECTION,
    Message,
    fit,
    headline,
    render,
)
from airflow_batchkit.notifications.standing import Standing


def failed(**facts: object) -> Incident:
    """Make an incident of a task that failed, with the facts that a worker gives."""
    known: dict[str, object] = {
        "kind": "task_failed",
        "dag_id": "nightly",
        "run_id": "scheduled__2026-03-01T00:00:00+00:00",
        "task_id": "export",
        "try_number": 2,
        "tries": 4,
        "error_type": "TransientError",
        "error_message": "the cluster does not answer",
        "stack_trace": "Traceback (most recent call last):\n  …\nTransientError: the cluster does not answer",
        "log_url": "http://airflow/dags/nightly/runs/r/tasks/export?try_number=2&x=1",
        "run_url": "http://airflow/dags/nightly/runs/r",
    }
    return Incident(**{**known, **facts})  # type: ignore[arg-type]  # facts are named as the fields are


def texts(message: Message) -> list[str]:
    """All texts of the blocks."""
    return [block["text"]["text"] for block in message.blocks]


def test_a_failed_task_is_told_whole() -> None:
    """The message names task, error, try, run, where it stands, the stack trace and the link to the log."""
    standing = Standing(line="batch 23/50 · 230,000/500,000 records (46%)", cursor="shard 3, _seq_no 229,999")
    message = render(failed(), standing)
    whole = "\n".join(texts(message))

    assert texts(message)[0] == "nightly.export failed"
    assert "*Error:* TransientError: the cluster does not answer" in whole
    assert "*Where it stands:* batch 23/50 · 230,000/500,000 records (46%)" in whole
    assert "*Cursor:* shard 3, _seq_no 229,999" in whole
    assert "*Try:* 2 of 4" in whole
    assert "```\nTraceback (most recent call last):" in whole
    link = "<http://airflow/dags/nightly/runs/r/tasks/export?try_number=2&amp;x=1|Log of the task>"
    assert link in whole


def test_the_plain_text_says_the_same_in_short() -> None:
    """A notification on a phone, which shows no blocks, has the facts and the link but no markup."""
    text = render(failed(), Standing(line="batch 1/2")).text

    assert text.splitlines()[:3] == [
        "nightly.export failed",
        "Error: TransientError: the cluster does not answer",
        "Where it stands: batch 1/2",
    ]
    assert "Log of the task: http://airflow/" in text
    assert "*" not in text
    assert "Traceback" not in text


def test_a_mapped_task_is_named_with_its_index() -> None:
    """People can tell which of the mapped tasks failed."""
    assert render(failed(map_index=3)).text.startswith("nightly.export[3] failed")


def test_a_task_without_an_exception_says_what_that_means() -> None:
    """A killed process leaves no exception; the message says so instead of leaving the error out."""
    message = render(failed(error_type=None, error_message=None, stack_trace=None))

    assert "Error: none is known: the process was killed" in message.text


def test_a_late_run_says_when_it_was_due() -> None:
    """A missed deadline names the run, the time it was due and the state it is in."""
    incident = Incident(
        kind="deadline_missed",
        dag_id="nightly",
        run_id="r",
        deadline="2026-03-01T06:00:00Z",
        run_state="running",
        run_url="http://airflow/dags/nightly/runs/r",
    )

    text = render(incident).text

    assert text.startswith("nightly is late")
    assert "Deadline: 2026-03-01T06:00:00Z" in text
    assert "State of the run: running" in text


@pytest.mark.parametrize(
    "hostile",
    [
        "<!channel> look",
        "<@U123> <https://evil.example|your bank>",
        "@channel and @here and @Everyone",
        "```\n<!here>\n``` out of the code",
        "a & b < c > d",
    ],
)
def test_text_from_errors_cannot_call_or_link(hostile: str) -> None:
    """Slack's control characters and the names that call everybody arrive as harmless text."""
    trace = f"Traceback\n{hostile}"
    message = render(failed(error_message=hostile, stack_trace=trace, run_id=hostile))
    for text in [message.text, *texts(message)[:-1]]:
        assert "<" not in text
        assert ">" not in text
        assert not any(call in text.lower() for call in ("@channel", "@here", "@everyone"))
    code = texts(message)[2]
    assert code.count("```") == 2, "the code block ends only at its end"


def test_escaping_loses_nothing() -> None:
    """What was escaped reads as it was."""
    assert html.unescape(fit("a & b < c > d &amp;", 100)) == "a & b < c > d &amp;"


def test_passwords_in_addresses_are_not_sent() -> None:
    """The user part of an address never leaves, wherever it stands."""
    secret = "https://user:hunter2secret@search.example/orders"
    message = render(
        failed(error_message=f"cannot reach {secret}", stack_trace=f"x\n{secret}"),
        Standing(line="x", cursor=secret),
    )

    assert "hunter2secret" not in message.text + "".join(texts(message))


def test_secrets_that_airflow_knows_are_not_sent() -> None:
    """What Airflow masks in logs is masked in messages too."""
    from airflow.providers.common.compat.sdk import mask_secret

    mask_secret("correct-horse-battery")
    message = render(
        failed(error_message="key correct-horse-battery", stack_trace="correct-horse-battery"),
        Standing(line="correct-horse-battery", cursor="correct-horse-battery"),
    )

    assert "correct-horse-battery" not in message.text + "".join(texts(message))


@pytest.mark.parametrize("filler", ["x", "&", "line\n", "ß"])
def test_every_text_keeps_to_the_limits_of_slack(filler: str) -> None:
    """However long the facts are, Slack takes every block, and both ends of a stack trace stay."""
    long = filler * 20_000
    message = render(
        Incident(
            kind="task_failed",
            dag_id="d" * 250,
            run_id=long,
            task_id="t" * 250,
            map_index=3,
            try_number=1,
            tries=1,
            logical_date=long,
            error_type="E",
            error_message=long,
            stack_trace=f"first line {long} last line",
            reason=long,
            run_state=long,
            deadline=long,
            log_url="http://airflow/log",
            run_url="http://airflow/run",
            environment=long,
        ),
        Standing(line=long, cursor=long),
    )

    assert len(message.blocks) <= 50
    assert len(texts(message)[0]) <= MAX_HEADER
    assert all(len(text) <= MAX_SECTION for text in texts(message))
    assert texts(message)[2].startswith("```\nfirst line")
    assert texts(message)[2].endswith("last line\n```")


def test_a_cut_never_halves_an_escaped_character() -> None:
    """The middle is cut out between characters, not inside ``&amp;``."""
    for limit in range(30, 60):
        cut = fit("&" * 100, limit)
        assert len(cut) <= limit
        assert set(cut.replace("&amp;", "").replace(" … left out … ", "")) == set()


def test_a_run_that_nobody_made_is_told_with_its_facts() -> None:
    """What `batchkit watch` finds reads like the other alerts: headline, facts, link; no task, no try."""
    missing = Incident(
        kind="run_missing",
        dag_id="nightly",
        run_id="",
        environment="production",
        facts=(("Expected", "2026-03-01 00:00:00 UTC"), ("Timetable", "0 0 * * *")),
        run_url="https://airflow.example/dags/nightly",
    )

    assert render(missing).text == (
        "nightly did not run\nEnvironment: production\nExpected: 2026-03-01 00:00:00 UTC\n"
        "Timetable: 0 0 * * *\nDAG: https://airflow.example/dags/nightly"
    )
    over = dataclasses.replace(missing, over=True, facts=(("Lasted", "3 h 20 min"),))
    assert render(over).text.startswith("All clear: nightly runs again\n")


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_has_its_words(kind: Kind) -> None:
    """And each that can end has words for its end; a part or a file stands where else a DAG does."""
    incident = Incident(kind=kind, dag_id="nightly", run_id="")
    begun = headline(incident)

    assert begun.startswith("nightly ")
    if kind not in {"task_failed", "run_failed", "deadline_missed"}:
        assert headline(dataclasses.replace(incident, over=True)).startswith("All clear: nightly ")
        assert headline(dataclasses.replace(incident, subject="<x>")) == begun.replace("nightly", "<x>")
        assert "&lt;x&gt;" in render(dataclasses.replace(incident, subject="<x>")).text
