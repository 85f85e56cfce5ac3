"""Kills a replay before and after every side effect, and goes on with the same replay or with another one.

Run as a program of its own (``python -m tests.support.replay_sweep SETTINGS.json``): it imports everything
once and forks a child for each leg. It prints one JSON line per kill point.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.letters import DeadLetterSource
from airflow_batchkit.connectors.letters.replay import replay_of
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.connectors.object_storage.verify.letters import verify_letters
from airflow_batchkit.engine.exceptions import RecordError
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget, Timeouts
from airflow_batchkit.stores.file import FileStore
from tests.support.forking import At, in_child
from tests.support.object_storage import Place, S3Connections
from tests.support.published import Published

ORDERS = 24


def orders() -> list[Mapping[str, Any]]:
    """Make up orders."""
    return [{"number": str(number), "amount": 1.5} for number in range(ORDERS)]


def broken(order: dict[str, Any]) -> dict[str, Any]:
    """Give up every other order: the transform before its fix."""
    if int(order["number"]) % 2 == 0:
        raise RecordError("an even order")
    return order


def fixed(order: dict[str, Any]) -> dict[str, Any] | None:
    """Give up every eighth order still, and filter one: the transform after its fix."""
    if int(order["number"]) % 8 == 0:
        raise ValueError("an order by eights")
    return None if order["number"] == "2" else order


class World:
    """One output with its dead letters, and replays of them.

    :param place: where both lie.
    :param folder: for the checkpoints.
    :param name: of this world.
    """

    def __init__(self, place: Place, folder: Path, name: str) -> None:
        self.place = place.below(name)
        self._store = FileStore(folder / name)

    def export(self, run: str = "run-1", data: str = "data") -> dict[str, Any]:
        """Publish what the broken transform lets through."""
        job = self._job(broken, data)
        budget = ErrorBudget(max_dead_letters=ORDERS)
        return self._run(Job(**{**job, "error_budget": budget, "dead_letters": self._letters}), run=run)

    def replay(self, run: str = "replay-1", transform: Any = fixed) -> dict[str, Any]:
        """Replay the letters with the fixed transform."""
        job = Job(**{**self._job(transform), "name": "dag.replay"})
        return self._run(replay_of(job, DeadLetterSource(self._letters)), run=run)

    def expire(self) -> None:
        """Let the leases of whoever owns output and letters be over."""
        store = self.place.store()
        for key in ("data/_batchkit/owner.json", "letters/dag.export/_batchkit/owner.json"):
            if key in self.place.names():
                record = json.loads(self.place.content(key))
                store.put(key, json.dumps({**record, "lease_until": 0.0}).encode())
        store.close()

    def picture(self) -> dict[str, Any]:
        """Return what a consumer, and a person, find at both, free of names that may differ."""
        data = self.place.below("data")
        verified = Published(data).verify()
        store = self.place.below("letters").store()
        verify_letters(store, verified, seconds=60.0, stop_asked=lambda: None)
        store.close()
        listed = json.loads(self.place.content("letters/dag.export/run-1/letters.json"))
        letters = [
            json.loads(line)
            for part in listed["parts"]
            for line in self.place.content(f"letters/dag.export/run-1/{part['key']}").splitlines()
        ]
        counts = data.manifest()["counts"]
        return {
            "whole": verified.whole,
            "lines": sorted(data.lines()),
            "letters": sorted([letter["id"], letter.get("replays", 0)] for letter in letters),
            "counts": {name: counts[name] for name in ("read", "filtered", "written", "dead_lettered")},
            "leftovers": [
                name
                for name in self.place.names()
                if "_batchkit/" in name and not name.endswith("owner.json")
            ]
            + [name for name in self.place.names() if "letters.next" in name]
            + sorted(
                {name for name in self.place.names() if "/letters-" in name and name.endswith(".ndjson")}
                - {f"letters/dag.export/run-1/{part['key']}" for part in listed["parts"]}
            ),
        }

    @property
    def _letters(self) -> DeadLetters:
        return DeadLetters(f"{self.place.url}/letters")

    def _job(self, transform: Any, data: str = "data") -> dict[str, Any]:
        return {
            "name": "dag.export",
            "source": IterableSource(records=orders, key="number"),
            "sink": ObjectStorageSink(url=f"{self.place.url}/{data}"),
            "transform": transform,
            "batch": BatchPolicy(max_records=5),
        }

    def _run(self, job: Job, *, run: str) -> dict[str, Any]:
        return (
            Pipeline(
                job,
                identity=RunIdentity(run=run),
                store=self._store,
                key=f"{job.name}.{run}",
                connections=self.place.connections,
            )
            .run()
            .to_dict()
        )


def points(place: Place, folder: Path, *, then: str, every: int) -> Iterator[dict[str, Any]]:
    """Kill a replay at each of its moments; yield what is there once another leg has ended.

    :param then: ``same`` replay goes on, or ``other`` one begins.
    :param every: only each so-manieth moment.
    """

    def killed(world: World, moment: int) -> list[str]:
        probe = At(moment, signal.SIGKILL)
        with probing(probe):
            world.replay()
        return probe.moments

    reference = World(place, folder, "reference")
    in_child(reference.export)
    moments = in_child(partial(killed, reference, 0))
    yield {"moments": moments, "picture": in_child(reference.picture)}
    for moment in range(every, len(moments) + 1, every):
        world = World(place, folder, f"{then}-{moment}")
        in_child(world.export)
        ended = in_child(partial(killed, world, moment))
        if then == "other":
            in_child(world.expire)
        in_child(partial(world.replay, "replay-1" if then == "same" else "replay-2"))
        yield {
            "point": f"{moment} {moments[moment - 1]}",
            "killed": ended == signal.SIGKILL,
            "picture": in_child(world.picture),
        }


def main(settings: dict[str, Any]) -> None:
    """Print one line per point."""
    connections = S3Connections(**settings["connections"])
    place = Place(url=settings["url"], connections=connections)
    if connections.endpoint_url:
        # The first client reads boto3's service models, which takes long; the children inherit them.
        connections.client("s3", "aws_default", timeouts=Timeouts()).close()
    for found in points(place, Path(settings["folder"]), then=settings["then"], every=settings["every"]):
        print(json.dumps(found), flush=True)  # noqa: T201  # the parent reads it


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
