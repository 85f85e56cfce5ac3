"""Exports on a real Airflow that are terminated, killed, frozen, cleared, marked and timed out in the middle.

After each, what is published is compared with the source record by record, and nothing else may lie there.
The scenarios that take long come first: they run side by side, see ``tests/support/together.py``.
"""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.exports import ALL, DAYS, RECORDS, Export, Exports, as_lines, order, published
from tests.support.object_storage import Place, S3Connections
from tests.support.processes import wait_until
from tests.support.together import Outcomes, begun, together

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.standalone import AirflowStandalone

pytestmark = [pytest.mark.standalone, pytest.mark.timeout(700)]

IN_A_ROW = ("signalled_1", "signalled_2", "signalled_3", "cut_off_1", "cut_off_2", "cut_off_3")


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, standalone: AirflowStandalone, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcomes]:
    """Run the scenarios of this module side by side on the tests' Airflow."""
    with begun(request, Exports(standalone, tmp_path_factory.mktemp("exports"))) as outcomes:
        yield outcomes


@pytest.mark.fault("sigterm", at="airflow")
@pytest.mark.fault("refused", at="airflow")
@together
def test_no_retry_is_lost_by_coming_back(exports: Exports) -> None:
    """Six tasks of five legs each end in their first try, and the scheduler finds no state mismatch."""
    first = exports.start("exporting_in_a_row", task_id=IN_A_ROW[0], interrupt=4)
    folder = first.folder.parent
    tasks = [Export(first.run, first.run.task(name), folder / name) for name in IN_A_ROW]

    first.run.wait("success", seconds=400)

    assert [task.report["legs"] for task in tasks] == [5] * 6
    assert [task.try_states for task in tasks] == [["success"]] * 6
    assert [task.callbacks for task in tasks] == [set()] * 6
    assert exports.mismatches(first) == []
    for task in tasks:
        assert published(task.place) == ALL


@together
def test_a_long_throttle_gives_the_slot_back(exports: Exports) -> None:
    """A wait longer than a slot is kept for ends the leg, and uses up no retry: the task has none."""
    export = exports.start("exporting_slowly", records=3)

    export.task.wait("up_for_reschedule", seconds=120)
    export.run.wait("success", seconds=400)

    assert export.report["legs"] == 3
    assert export.try_states == ["success"]
    assert export.callbacks == set()
    assert published(export.place) == ALL[:3]


@pytest.mark.fault("zombie", at="airflow")
@pytest.mark.fault("two-at-once", at="airflow")
@together
def test_a_thawed_try_changes_nothing(exports: Exports) -> None:
    """A worker freezes while it publishes, the next try publishes, the worker thaws: all stays as it is."""
    export = exports.start(hold="before sink.switch 1")
    frozen = export.held()
    supervisor = frozen.parent()
    assert supervisor is not None
    frozen.suspend()
    supervisor.suspend()
    try:
        export.run.wait("success", seconds=200)
        manifest = export.place.content("manifest.json")
        export.go()
    finally:
        frozen.resume()

    # Its supervisor still sleeps: nobody ends the process before it has tried to go on.
    assert export.wait_until_ended(frozen) == "AirflowRescheduleException"
    supervisor.resume()
    psutil.wait_procs([frozen], timeout=30)

    assert export.place.content("manifest.json") == manifest
    assert published(export.place) == ALL
    assert export.run.state() == "success"
    assert export.report["legs"] == 2
    assert export.callbacks == {"retry"}


@pytest.mark.fault("zombie", at="airflow")
@pytest.mark.fault("two-at-once", at="airflow")
@together
def test_a_thawed_run_changes_nothing_of_the_next_run(exports: Exports) -> None:
    """A run freezes while it publishes, the next run takes over and publishes; thawed, the first fails."""
    export = exports.start(hold="before sink.switch 1", records=RECORDS // 2)
    frozen = export.held()
    frozen.suspend()
    try:
        let_lease_run_out(export)
        following = exports.start(folder=export.folder.parent)
        following.run.wait("success", seconds=120)
        manifest = export.place.content("manifest.json")
        export.go()
    finally:
        frozen.resume()

    export.run.wait("failed", seconds=150)

    assert "another run has published there since" in export.task.log()
    assert export.try_states == ["failed"]
    assert export.callbacks == {"failure"}
    assert export.place.content("manifest.json") == manifest
    assert published(export.place) == ALL


@pytest.mark.fault("sigterm", at="airflow")
@together
def test_sigterm_goes_on_later(exports: Exports) -> None:
    """A terminated task has saved within 3 s, though a write hangs; it goes on later, in the same try."""
    export = exports.start(hold="before sink.put 6")
    process = export.held(saved=True)

    asked_at = time.time()
    process.send_signal(signal.SIGTERM)
    export.task.wait("up_for_reschedule")
    assert 0 < export.checkpoint()["saved_at"] - asked_at < 3
    saved = export.saved
    export.run.wait("success")

    assert export.report["legs"] == 2
    assert export.resumed_after == saved
    assert export.try_states == ["success"]
    assert export.callbacks == set()
    assert published(export.place) == ALL


@pytest.mark.fault("sigkill", at="airflow")
@together
def test_sigkill_resumes_in_the_next_try(exports: Exports) -> None:
    """A killed task uses up one retry, which goes on after the last save."""
    export = exports.start(hold="before sink.put 6")
    process = export.held(saved=True)

    saved = export.saved
    process.kill()
    export.run.wait("success")

    assert export.report["legs"] == 2
    assert export.resumed_after >= saved > 0
    assert export.try_states == ["failed", "success"]
    assert "failure" not in export.callbacks
    assert published(export.place) == ALL


@pytest.mark.fault("sigterm", at="airflow")
@together
def test_marked_failed_and_cleared_resumes(exports: Exports) -> None:
    """A task that is marked failed stays so, stops by itself, and goes on where it was when cleared."""
    export = exports.start(hold="before sink.put 6")
    process = export.held(saved=True)

    export.task.mark("failed")
    psutil.wait_procs([process], timeout=30)
    assert not process.is_running()
    assert export.wait_until_ended(process) == "AirflowRescheduleException"
    assert export.run.wait() == "failed"
    assert not (export.folder / "out" / "manifest.json").exists()
    saved = export.saved
    export.task.clear()
    export.run.wait("success")

    assert export.resumed_after == saved > 0
    assert published(export.place) == ALL


@pytest.mark.fault("two-at-once", at="airflow")
@together
def test_cleared_while_running_is_superseded(exports: Exports) -> None:
    """The old leg of a task that is cleared while it runs ends without an alert, and the new try goes on."""
    export = exports.start(hold="before sink.put 6")
    process = export.held(saved=True)

    saved = export.saved
    export.task.clear()
    psutil.wait_procs([process], timeout=60)
    export.run.wait("success")

    assert "superseded: " in export.task.log(try_number=1)
    assert "failure" not in export.callbacks
    assert export.resumed_after >= saved > 0
    assert published(export.place) == ALL


@together
def test_cleared_after_success_restarts(exports: Exports) -> None:
    """A task that succeeded and is cleared does all again, and its output replaces the older one."""
    export = exports.start()
    export.run.wait("success")
    before = export.place.manifest()
    assert export.report["legs"] == 1
    assert published(export.place) == ALL

    export.task.clear()
    export.run.wait("success")

    assert export.place.manifest()["generation"] != before["generation"]
    assert export.report["counts"]["read"] == RECORDS
    assert export.report["legs"] == 1
    assert published(export.place) == ALL


@pytest.mark.fault("sigkill", at="airflow")
@together
def test_completed_and_killed_does_nothing_again(exports: Exports) -> None:
    """Killed when its work is done and Airflow has not heard: the retry returns the stored report."""
    export = exports.start(hold="after sink.release 1")
    process = export.held()
    manifest = export.place.content("manifest.json")
    finished_at = export.checkpoint()["report"]["finished_at"]

    process.kill()
    export.run.wait("success")

    assert export.try_states == ["failed", "success"]
    assert "the run is complete already" in export.task.log()
    assert export.report["finished_at"] == finished_at
    assert export.place.content("manifest.json") == manifest
    assert published(export.place) == ALL


@pytest.mark.fault("sigterm", at="airflow")
@together
def test_timeout_in_a_slow_save(exports: Exports) -> None:
    """``execution_timeout`` strikes while a save waits for its answer: no later answer is mistaken for it."""
    export = exports.start(hold="before checkpoint.save 2")
    process = export.held()
    supervisor = process.parent()
    assert supervisor is not None

    supervisor.suspend()
    try:
        export.go()
        export.wait_until_gone_on()
        time.sleep(
            0.5
        )  # nothing tells that the question is on its way to the supervisor, which does not answer
        # What the timer of execution_timeout sends when its time has come.
        process.send_signal(signal.SIGALRM)
        assert export.wait_until_ended(process) == "AirflowTaskTimeout"
    finally:
        supervisor.resume()
    export.run.wait("success")

    assert export.try_states == ["failed", "success"]
    assert export.callbacks == {"retry"}
    assert export.report["legs"] == 2
    assert published(export.place) == ALL


@pytest.mark.fault("poison", at="airflow")
@together
def test_error_budget_fails_at_once_and_a_clear_opens_a_new_period(exports: Exports) -> None:
    """The run fails without using its retries, says why; cleared, it goes on with a full budget."""
    export = exports.start("exporting_poisoned")
    export.run.wait("failed")

    assert export.try_states == ["failed"]
    assert export.callbacks == {"failure"}
    log = export.task.log()
    assert "4 dead letters, 3 allowed (max_dead_letters); most frequent: RecordError × 4" in log
    assert "a clear of the task opens a new budget period" in log
    shown = [json.loads(path.read_text()) for path in (export.folder / "letters").rglob("letters.json")]
    assert [(head["complete"], head["total"]["records"]) for head in shown] == [(False, 4)]
    assert not (export.folder / "out" / "manifest.json").exists()

    export.task.clear()
    export.run.wait("success")

    poisoned = [line for line in ALL if not line["amount"].isdigit()]
    assert published(export.place) == [line for line in ALL if line not in poisoned]
    letters = [
        json.loads(line)
        for path in sorted((export.folder / "letters").rglob("*.ndjson"))
        for line in path.read_text().splitlines()
    ]
    assert [letter["id"] for letter in letters] == [line["_id"] for line in poisoned]


@pytest.mark.fault("checkpoint-unfit", at="airflow")
@together
def test_changed_transform_refuses_to_resume(exports: Exports) -> None:
    """With a mended transform, a cleared run refuses at once to mix two outputs; restarted, it is whole."""
    export = exports.start("mending")
    export.run.wait("failed")
    deploy(exports, 'int(order["amount"]) * 2', 'order["amount"] * 2')

    export.task.clear()
    export.run.wait("failed")
    log = export.task.log()
    assert "CannotResumeError: changed since the checkpoint: transform; going on would mix two jobs'" in log
    assert "restart the run (when_cleared='restart' and clear, or --restart)" in log
    assert export.try_states == ["failed", "failed"]
    assert not (export.folder / "out" / "manifest.json").exists()

    deploy(exports, 'WHEN_CLEARED = "resume"', 'WHEN_CLEARED = "restart"')
    export.task.clear()
    export.run.wait("success")

    assert published(export.place) == [{**line, "twice": line["amount"] * 2} for line in ALL]


@together
def test_backfill_of_three_days(exports: Exports) -> None:
    """Each day's run publishes that day's orders, all of them and no others, below that day's prefix."""
    folder = exports.new_folder()
    runs = exports.airflow.backfill(
        "exporting_daily",
        first=datetime(2026, 3, 1, tzinfo=UTC),
        last=datetime(2026, 3, 3, tzinfo=UTC),
        conf={"folder": str(folder)},
    )
    assert len(runs) == len(DAYS)
    for run in runs:
        run.wait("success", seconds=200)

    for day in DAYS:
        place = Place(url=f"file://{folder}/export/ds={day}", connections=S3Connections(endpoint_url=""))
        assert published(place) == as_lines(
            each for each in map(order, range(1, RECORDS + 1)) if each["day"] == day
        )


@together
def test_run_without_logical_date(exports: Exports) -> None:
    """Templates that need a date fail such a run in one line, before any work and without a retry."""
    export = exports.start("exporting_daily")
    export.run.wait("failed")

    assert "'ds' is undefined; nothing was read or written." in export.task.log()
    assert export.try_states == ["failed"]
    assert not list(export.folder.glob("ds=*"))


def let_lease_run_out(export: Export) -> None:
    """Do in no time what two minutes of silence do to the hold on the target."""
    path = export.folder / "out" / "_batchkit" / "owner.json"
    wait_until(path.exists, seconds=5, what="an owner record")
    path.write_text(json.dumps({**json.loads(path.read_text()), "lease_until": time.time() - 1}))


def deploy(exports: Exports, old: str, new: str) -> None:
    """Change the DAG file, as the deployment of a new version does."""
    path = exports.airflow.home / "dags" / "mending.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
