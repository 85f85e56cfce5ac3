"""The API server that tasks talk to is killed in the middle of an export, and comes back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.exports import ALL, Exports, published

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.standalone import AirflowStandalone

pytestmark = [pytest.mark.standalone, pytest.mark.timeout(700)]

AWAY_SECONDS = 8.0


@pytest.mark.fault("store-away", at="airflow")
def test_nothing_gets_ahead_of_a_store_that_is_away(standalone: AirflowStandalone, tmp_path: Path) -> None:
    """While no save is possible, nothing is published, no progress is shown; then the run finishes."""
    export = Exports(standalone, tmp_path).start(hold="before checkpoint.save 2")
    export.held()
    saved = export.saved
    standalone.kill_server_for_tasks()
    try:
        export.go()
        export.wait_until_gone_on()
        deadline = time.monotonic() + AWAY_SECONDS
        while time.monotonic() < deadline:
            assert not (export.folder / "out" / "manifest.json").exists()
            assert export.saved == saved
            time.sleep(0.5)
    finally:
        standalone.start_server_for_tasks()

    export.run.wait("success", seconds=400)
    assert published(export.place) == ALL
    assert "failure" not in export.callbacks
