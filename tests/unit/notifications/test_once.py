"""Saying a thing once."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from airflow_batchkit.notifications.once import KEPT_SECONDS, claimed, state_of

KEY = ("nightly", "run", "task", None, 1, "task_failed")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_the_second_claim_is_refused() -> None:
    """One callback speaks; the second about the same thing, in whatever process, does not; others do."""
    assert state_of(KEY) is None
    with claimed(KEY) as first:
        assert first
        assert state_of(KEY) == "telling"
    assert state_of(KEY) == "told"
    with claimed(KEY) as first:
        assert not first
    with claimed((*KEY, "other")) as first:
        assert first


def test_a_claim_holds_across_processes(tmp_path: Path) -> None:
    """The dag-processor calls back twice from two processes; the second finds the claim of the first."""
    code = f"from airflow_batchkit.notifications.once import claimed\nwith claimed({KEY!r}) as f: print(f)"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.strip()
        for _ in range(2)
    ]

    assert said == ["True", "False"]


def test_who_failed_to_speak_gives_the_claim_back() -> None:
    """When the first callback could not send, the second may try."""
    with pytest.raises(OSError, match="Slack is down"), claimed(KEY):
        raise OSError("Slack is down")
    with claimed(KEY) as first:
        assert first


def test_a_folder_that_cannot_be_used_never_silences(tmp_path: Path) -> None:
    """Without a place for markers a thing may be said twice, but it is said."""
    (tmp_path / f"airflow_batchkit-alerts-{os.getuid()}").write_text("not a folder")

    for _ in range(2):
        with claimed(KEY) as first:
            assert first


def test_markers_do_not_pile_up(tmp_path: Path) -> None:
    """A claim a day old is removed by a later one."""
    with claimed(KEY):
        pass
    folder = tmp_path / f"airflow_batchkit-alerts-{os.getuid()}"
    (old,) = folder.iterdir()
    long_ago = time.time() - KEPT_SECONDS - 60
    os.utime(old, (long_ago, long_ago))

    with claimed((*KEY, "other")):
        pass

    assert [marker for marker in folder.iterdir() if marker == old] == []
