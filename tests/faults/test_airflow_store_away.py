"""The API server that tasks talk to is killed in the middle of an export, and comes back."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.exports import ALL, Exports, published
from tests.support.standalone import AirflowStandalone

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.standalone, pytest.mark.timeout(700)]

AWAY_SECONDS = 8.0


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowStandalone]:
    """Give an Airflow of this module's own: other tests need an API server that stays."""
    home = tmp_path_factory.mktemp("fragile")
    dags = home / "dags"
    dags.mkdir()
    shutil.copy(Path(__file__).parents[1] / "dags" / "exporting.py", dags)
    server = AirflowStandalone(home, dags)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_nothing_gets_ahead_of_a_store_that_is_away(fragile: AirflowStandalone, tmp_path: Path) -> None:
    """While no save is possible, nothing is published, no progress is shown; then the run finishes."""
    export = Exports(fragile, tmp_path).start(hold="before checkpoint.save 2")
    export.held()
    saved = export.saved
    fragile.kill_server_for_tasks()
    try:
        export.go()
        export.wait_until_gone_on()
        deadline = time.monotonic() + AWAY_SECONDS
        while time.monotonic() < deadline:
            assert not (export.folder / "out" / "manifest.json").exists()
            assert export.saved == saved
            time.sleep(0.5)
    finally:
        fragile.start_server_for_tasks()

    export.run.wait("success", seconds=400)
    assert published(export.place) == ALL
    assert "failure" not in export.callbacks
