"""``batchkit watch`` on a real Airflow: what keeps jobs from running, and the end of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from airflow_batchkit.cli.watch import watch
from tests.support.processes import ServerError, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.slack import SlackServer
    from tests.support.standalone import AirflowStandalone

pytestmark = [pytest.mark.standalone, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


class Watching:
    """A watch that keeps its state, and whose messages the test reads off Slack."""

    def __init__(self, url: str, state: Path, slack: SlackServer) -> None:
        self.url = url
        self._options = [
            *("--dag", "watching_*", "--any-import-error", "--grace", "1s", "--settle", "0s"),
            *("--slack-channel", "#ops", "--environment", "tests", "--state", str(state)),
        ]
        self._slack = slack
        self._seen = 0

    def check(self, *, url: str | None = None) -> int:
        """Check once and return the exit code."""
        command = [*self._options, "--airflow-url", url or self.url]
        result = CliRunner().invoke(watch, command, standalone_mode=False)
        assert result.exception is None, result.output
        code: int = result.return_value
        return code

    def news(self) -> list[str]:
        """Return the headlines that came since this was last asked, sorted."""
        messages = self._slack.messages[self._seen :]
        self._seen += len(messages)
        return sorted(message.text.splitlines()[0] for message in messages)

    def gathered(self, *headlines: str, seconds: float = 60) -> None:
        """Check again and again until these headlines have come, and no other, each once."""
        found: list[str] = []

        def all_there() -> bool:
            self.check()
            found.extend(self.news())
            return len(found) >= len(headlines)

        try:
            wait_until(all_there, seconds=seconds, what=f"{headlines}", every=0.5)
        except ServerError as error:
            raise ServerError(f"{error}; came: {found}") from None
        self.check()
        assert sorted([*found, *self.news()]) == sorted(headlines)


@pytest.fixture
def watching(
    standalone: AirflowStandalone, slack_server: SlackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Watching]:
    """Give a watch whose Airflow is left as it was found."""
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_API_DEFAULT", slack_server.api_connection())
    for dag_id in ("watching_often", "watching_failed"):
        standalone.wait_for_dag(dag_id)
        standalone.unpause(dag_id)
    yield Watching(standalone.url, tmp_path / "state", slack_server)
    standalone.start_scheduler()
    for dag_id in ("watching_often", "watching_failed", "watching_paused"):
        standalone.request("PATCH", f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": True})


def test_everything_that_keeps_jobs_from_running_is_told_once(
    standalone: AirflowStandalone, watching: Watching
) -> None:
    """Paused, failed, a broken file, no scheduler, no Airflow: one message each, and one when it is over."""
    broken = standalone.dags / "watching_broken.py"
    # Airflow looks only into files that hold the words "airflow" and "dag".
    broken.write_text("import no_such_module  # an airflow dag\n")
    standalone.trigger("watching_failed", conf={"how": "raise"}).wait("failed")
    wait_until(lambda: bool(standalone.runs("watching_often")), seconds=60, what="a scheduled run")
    watching.gathered(
        "watching_paused is paused",
        "watching_failed failed and has not succeeded since",
        "watching_broken.py cannot be imported",
    )

    broken.unlink()
    standalone.unpause("watching_paused")
    standalone.trigger("watching_failed", conf={"how": "well"}).wait("success")
    watching.gathered(
        "All clear: watching_paused is no longer paused",
        "All clear: watching_failed has succeeded since",
        "All clear: watching_broken.py can be imported again",
    )

    standalone.kill_scheduler()
    watching.gathered("Airflow's scheduler is down", "watching_often did not run")

    standalone.start_scheduler()
    watching.gathered("All clear: Airflow's scheduler is up again", "All clear: watching_often runs again")

    nobody = f"http://127.0.0.1:{free_port()}"
    assert [watching.check(url=nobody), watching.check(url=nobody)] == [1, 1]
    assert watching.news() == ["Airflow does not answer"]
    assert watching.check() == 0
    assert watching.news() == ["All clear: Airflow answers again"]
