"""``batchkit watch``: what it prints, how it ends, where its state is, and that it needs no Airflow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from airflow_batchkit.cli.checkpoint_files import checkpoint_at
from airflow_batchkit.cli.watch import watch
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.watching import api as api_module
from tests.support.airflow_answers import AirflowAnswers
from tests.support.command_line import environment_of
from tests.support.processes import free_port
from tests.support.slack import SlackServer


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowAnswers]:
    """Give an Airflow with one DAG in order, whose address is in the environment."""
    with AirflowAnswers() as server:
        server.add_dag(next_dagrun_run_after=None, timetable_summary=None)
        server.add_run()
        monkeypatch.setenv("AIRFLOW_API_URL", server.url)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        yield server


def run(*arguments: str) -> tuple[int, str, str]:
    """Run the command in this process; return exit code, standard output and standard error."""
    result = CliRunner().invoke(watch, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.stdout, result.stderr


def states(folder: Path) -> list[Path]:
    """Return the files in which state was kept by default."""
    return [file for file in (folder / "state/airflow-batchkit/watch").iterdir() if file.name[0] != "."]


def test_nothing_is_wrong(airflow: AirflowAnswers) -> None:
    """One line and exit code 0; quietly, not even that."""
    assert run("--max-age", "100000d") == (0, "1 DAG watched · 0 incidents\n", "")
    assert run("--max-age", "100000d", "--quiet") == (0, "", "")
    assert all("/api/v2/" in path for path in airflow.asked)


def test_without_slack_the_lines_tell(airflow: AirflowAnswers, tmp_path: Path) -> None:
    """New, going on, over: quietly only what is new or over, once each."""
    airflow.dags[0]["is_paused"] = True
    paused = "orders is paused — Last success: 2026-11-24 00:00:42 UTC"
    assert run("--settle", "0s") == (1, f"new   {paused}\n1 DAG watched · 1 incident\n", "")
    assert run("--settle", "0s") == (1, f"still {paused}\n1 DAG watched · 1 incident\n", "")
    assert run("--settle", "0s", "-q") == (1, "", "")

    airflow.dags[0]["is_paused"] = False
    code, printed, _ = run("--settle", "0s", "-q")
    assert code == 0
    assert printed.startswith("over  All clear: orders is no longer paused — Lasted: ")
    assert len(states(tmp_path)) == 1
    assert states(tmp_path)[0].stat().st_mode & 0o077 == 0


def test_json_for_machines(airflow: AirflowAnswers) -> None:
    """One object, with the state of things and the news."""
    airflow.dags[0]["is_paused"] = True

    code, printed, _ = run("--json")

    report = json.loads(printed)
    assert code == 1
    assert report["dags"] == 1
    assert [incident["kind"] for incident in report["begun"]] == ["dag_paused"]


def test_each_set_of_dags_and_each_place_has_a_state_of_its_own(
    airflow: AirflowAnswers, slack_server: SlackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look by hand does not take the alert away from the channel; limits may change without losing it."""
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_API_DEFAULT", slack_server.api_connection())
    airflow.dags[0]["is_paused"] = True
    run()
    run("--grace", "1h")
    run("--dag", "orders")
    assert len(states(tmp_path)) == 2

    run("--dag", "orders", "--slack-channel", "#data", "--environment", "tests")
    assert len(states(tmp_path)) == 3
    (message,) = slack_server.messages
    assert message.text == (
        "orders is paused\nEnvironment: tests\nLast success: 2026-11-24 00:00:42 UTC\n"
        f"DAG: {airflow.url}/dags/orders"
    )


def test_slack_is_down(
    airflow: AirflowAnswers, slack_server: SlackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code and a line say so; the next check sends it, once."""
    from tests.support.slack import Answer

    monkeypatch.setenv("AIRFLOW_CONN_HOOK", slack_server.webhook_connection())
    airflow.dags[0]["is_paused"] = True
    slack_server.answer_next(Answer(status=500))
    code, printed, error = run("--slack-webhook-conn-id", "hook")
    assert code == 1
    assert "still orders is paused" in printed
    assert "through connection 'hook'" in error
    assert "the next check tries again" in error

    for _ in range(2):
        run("--slack-webhook-conn-id", "hook")
    assert [message.text.splitlines()[0] for message in slack_server.messages] == ["orders is paused"]


def test_who_watches_the_watcher(airflow: AirflowAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is pinged after a check that found nothing, never after another."""
    with AirflowAnswers() as switch:
        monkeypatch.setenv("BATCHKIT_PING_URL", f"{switch.url}/secret-of-the-check")
        switch.planned.append((200, {}, b""))
        assert run()[0] == 0
        assert switch.asked == ["/secret-of-the-check"]

        code, _, error = run()
        assert code == 0
        assert error == "batchkit: the address to ping answered with status 404\n"

        airflow.dags[0]["is_paused"] = True
        run()
        assert len(switch.asked) == 2


def test_airflow_is_not_there(airflow: AirflowAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is an incident like others, told when it lasts."""
    monkeypatch.setattr(api_module, "_PAUSE_SECONDS", 0.0)
    url = f"http://127.0.0.1:{free_port()}"

    code, printed, _ = run("--airflow-url", url, "--settle", "0s")

    assert code == 1
    assert printed.startswith(
        f"new   Airflow does not answer — {url}/api/v2/monitor/health: Connection refused"
    )
    assert printed.endswith("Airflow could not be asked · 1 incident\n")
    assert airflow.asked == []


def test_two_watches_of_one_state(airflow: AirflowAnswers, tmp_path: Path) -> None:
    """The second one is told who is at it, and asks nothing."""
    file = tmp_path / "watch.state"
    with checkpoint_at(file).held():
        code, printed, error = run("--state", str(file))
    assert (code, printed) == (1, "")
    assert "nothing was checked: another batchkit process" in error
    assert airflow.asked == []


def test_a_state_that_cannot_be_kept(airflow: AirflowAnswers, tmp_path: Path) -> None:
    """Refused before anything is asked or told."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"the state cannot be kept in .*choose a file with --state"):
        run("--state", str(tmp_path / "file" / "watch.state"))
    assert airflow.asked == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--slack-conn-id", "x"), "say where alerts go"),
        (("--max-age", "a day"), "max_age: 'a day' is not a duration"),
        (("--maintenance", "Sunday"), "write for example 'Sun 02:00-04:00"),
        (("--ping-url", "http://hc.example/x"), "must be an https:// URL"),
        (("--airflow-url", "airflow.example"), "write for example https://airflow.example"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_asked(
    airflow: AirflowAnswers, arguments: tuple[str, ...], message: str
) -> None:
    """Each in one line that says what to write."""
    with pytest.raises(UsageError, match=message):
        run(*arguments)
    assert airflow.asked == []


def test_a_file_and_options_go_together(airflow: AirflowAnswers, tmp_path: Path) -> None:
    """Options win over the file's settings; what says which DAGs belongs into the file alone."""
    airflow.add_dag("items", is_paused=True, next_dagrun_run_after=None)
    file = tmp_path / "watch.toml"
    file.write_text('environment = "staging"\n[[watch]]\ndags = ["items"]\n')

    _, printed, _ = run("--config", str(file), "--settle", "0s")
    assert printed.splitlines()[0].startswith("new   items is paused")
    with pytest.raises(UsageError, match=r"--tag belongs into its \[\[watch\]\] tables"):
        run("--config", str(file), "--tag", "nightly")


def test_a_check_without_news_imports_no_airflow(airflow: AirflowAnswers, tmp_path: Path) -> None:
    """Every five minutes, from cron: a fraction of a second, and neither Airflow nor a client library."""
    program = (
        "import sys\nfrom airflow_batchkit.cli import main\n"
        "try:\n    main(['watch', '--slack-channel', '#data'])\n"
        "finally:\n    print([n for n in ('airflow', 'slack_sdk', 'boto3') if n in sys.modules])"
    )
    environment: dict[str, Any] = {**environment_of(tmp_path), "AIRFLOW_API_URL": airflow.url}

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "1 DAG watched · 0 incidents\n[]\n"), done.stderr
