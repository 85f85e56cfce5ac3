"""``batchkit checkpoints list|show|clear``."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from airflow_batchkit.cli.checkpoints import checkpoints
from airflow_batchkit.engine.checkpoint import Checkpoint, Counts, encode
from airflow_batchkit.engine.exceptions import CannotResumeError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a default folder with one finished, one old and one damaged checkpoint."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "airflow-batchkit" / "checkpoints"
    folder.mkdir(parents=True)
    for name, status, days in (("new", "completed", 0), ("old", "running", 9)):
        checkpoint = Checkpoint(
            run=f"run-{name}",
            token="0" * 16,
            generation="abcd1234",
            started_at=1.0,
            saved_at=time.time() - days * DAY,
            status=status,
            counts=Counts(read=1_234_567),
        )
        (folder / name).write_text(encode(checkpoint))
    (folder / "torn").write_text("{")
    (folder / ".new.lock").touch()
    return folder


def run(*arguments: str, answer: str | None = None) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(checkpoints, arguments, input=answer)


def test_list_shows_where_each_job_stands(folder: Path) -> None:
    """Name, run, mode, status, records read and age of each; a damaged one is listed as damaged."""
    result = run("list")
    lines = {line.split()[0]: line for line in result.output.splitlines()}
    assert set(lines) == {"JOB", "new", "old", "torn"}
    assert "run-new" in lines["new"]
    assert "completed" in lines["new"]
    assert "1,234,567" in lines["new"]
    assert lines["old"].endswith("9 d")
    assert "damaged" in lines["torn"]
    assert str(folder) not in result.output


def test_list_says_where_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any checkpoint, the folder that was looked at is named."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert f"no checkpoints in {tmp_path}" in run("list").output


def test_list_of_a_file_of_the_users_choice(folder: Path) -> None:
    """--checkpoint FILE lists just that file."""
    assert len(run("list", "--checkpoint", str(folder / "old")).output.splitlines()) == 2


def test_show_prints_json(folder: Path) -> None:
    """The decoded checkpoint is printed as JSON that another program can read, by name and by file."""
    for arguments in (("new",), ("--checkpoint", str(folder / "new"))):
        shown = json.loads(run("show", *arguments).output)
        assert shown["run"] == "run-new"
        assert shown["counts"]["read"] == 1_234_567


@pytest.mark.usefixtures("folder")
def test_show_refuses_what_is_not_there_or_damaged() -> None:
    """An unknown name and a damaged file are each told in one line; a name never leaves the folder."""
    assert isinstance(run("show", "none").exception, UsageError)
    assert isinstance(run("show", "../checkpoints/new").exception, UsageError)
    assert isinstance(run("show", "torn").exception, CannotResumeError)
    assert run("show").exit_code == 2


def test_clear_asks_first(folder: Path) -> None:
    """Nothing is removed unless the person says yes; what is asked for names what would go."""
    refused = run("clear", "old", answer="n\n")
    assert refused.exit_code == 1
    assert "1,234,567 records read" in refused.output
    assert (folder / "old").exists()
    assert run("clear", "old", answer="y\n").exit_code == 0
    assert not (folder / "old").exists()
    assert (folder / "new").exists()


def test_clear_by_age_removes_only_the_old(folder: Path) -> None:
    """--older-than removes what was saved longer ago, and leaves the rest."""
    result = run("clear", "--older-than", "7d", "--yes")
    assert "removed 1" in result.output
    assert sorted(file.name for file in folder.iterdir()) == [".new.lock", "new", "torn"]
    assert "nothing to remove" in run("clear", "--older-than", "7d", "--yes").output


def test_clear_takes_several_and_damaged_ones(folder: Path) -> None:
    """Several names at once, a damaged file among them."""
    assert "removed 2" in run("clear", "new", "torn", "--yes").output
    assert [file.name for file in folder.iterdir() if not file.name.startswith(".")] == ["old"]


@pytest.mark.usefixtures("folder")
def test_clear_without_saying_what_is_refused() -> None:
    """`clear` alone never means "everything"."""
    assert run("clear", "--yes").exit_code == 2


@pytest.fixture
def target(tmp_path: Path) -> str:
    """Give the URL of an output with an unfinished run's checkpoint, and one that is damaged, beside it."""
    place = tmp_path / "out" / "_batchkit"
    place.mkdir(parents=True)
    checkpoint = Checkpoint(
        run="run-t",
        token="0" * 16,
        generation="abcd1234",
        started_at=1.0,
        saved_at=time.time() - 2 * DAY,
        counts=Counts(read=77),
    )
    (place / "checkpoint-run.json").write_text(encode(checkpoint))
    (place / "checkpoint-torn.json").write_text("{")
    (place / "owner.json").write_text("{}")
    return f"file://{tmp_path}/out"


def test_what_lies_at_a_target_is_listed_shown_and_removed(target: str, tmp_path: Path) -> None:
    """By the URL of the output; the owner record and the output are left alone."""
    listed = run("list", "--target", target).output.splitlines()
    assert [line.split()[0] for line in listed] == ["JOB", "run", "torn"]
    assert "run-t" in listed[1]
    assert listed[1].endswith("2 d")
    assert json.loads(run("show", "run", "--target", target).output)["counts"]["read"] == 77
    assert "removed 1" in run("clear", "run", "--target", target, "--yes").output
    assert "removed 1" in run("clear", "--target", target, "--older-than", "7d", "--yes").output
    assert f"no checkpoints in {target}/_batchkit" in run("list", "--target", target).output
    assert (tmp_path / "out" / "_batchkit" / "owner.json").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("show", "--target", "{}/nothing"), UsageError, "no checkpoints in file://"),
        (("show", "missing", "--target", "{}"), UsageError, "no checkpoint 'missing' in file://"),
        (("list", "--target", "elasticsearch+http://h:9200/i"), UsageError, "elasticsearch"),
        (("list", "--target", "{}", "--checkpoint", "f"), SystemExit, "give either"),
    ],
)
def test_mistaken_targets_are_one_line(
    target: str, arguments: tuple[str, ...], error: type[BaseException], message: str
) -> None:
    """What is not there, cannot be there, or contradicts itself."""
    result = run(*(argument.format(target) for argument in arguments))
    assert isinstance(result.exception, error)
    assert message in (result.output if error is SystemExit else str(result.exception))
