"""Checkpoints beside an output, as the tests open them and look at them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.checkpoint import Checkpoint, decode
from airflow_batchkit.stores.target import TARGET_KEY, TargetStore

if TYPE_CHECKING:
    from tests.support.object_storage import Place


def store_at(place: Place) -> TargetStore:
    """Open the checkpoints at a place."""
    return TargetStore(ObjectStorageSink(url=place.url).open_values(place.context))


def checkpoint_in(folder: Path) -> Checkpoint:
    """Read what lies beside the output in a folder."""
    return decode((folder / "_batchkit" / f"checkpoint-{TARGET_KEY}.json").read_text())


def let_lease_run_out(folder: Path) -> None:
    """Do in no time what two minutes of silence do to the hold on a folder."""
    path = folder / "_batchkit" / "owner.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lease_until": time.time() - 1}))
