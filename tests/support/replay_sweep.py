"""Kills an export with dead letters, or a replay of them, at every side effect, and goes on.

Run as a program of its own (``python -m tests.support.replay_sweep SETTINGS.json``): it imports everything
once and forks a child for each leg. It prints one JSON line per kill point.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from airflow_batchkit.connectors.iterable import IterableSource
from airflow_batchkit.connectors.letters import DeadLetterSource
from airflow_batchkit.connectors.letters.replay import replay_of
from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.exceptions import RecordError
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget, Timeouts
from airflow_batchkit.stores.file import FileStore
from tests.support.elasticsearch import ElasticsearchEndpoint
from tests.support.forking import At, in_child
from tests.support.letter_boxes import IndexBox, LetterBox, ObjectBox, TableBox
from tests.support.object_storage import Place, S3Connections
from tests.support.published import Published

ORDERS = 24
Then: TypeAlias = Literal["same", "other", "export"]


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
    :param letters: where the letters lie instead.
    """

    def __init__(self, place: Place, folder: Path, name: str, *, letters: LetterBox | None = None) -> None:
        self.place = place.below(name)
        self._data = self.place.below("data")
        self._box = ObjectBox(self.place.below("letters")) if letters is None else letters.below(name)
        self._store = FileStore(folder / name)

    def export(self, run: str = "run-1") -> dict[str, Any]:
        """Publish what the broken transform lets through."""
        budget = ErrorBudget(max_dead_letters=ORDERS)
        return self._run(
            Job(**{**self._job(broken), "error_budget": budget, "dead_letters": self._box.place}), run=run
        )

    def replay(self, run: str = "replay-1", transform: Any = fixed) -> dict[str, Any]:
        """Replay the letters with the fixed transform."""
        job = Job(**{**self._job(transform), "name": "dag.replay"})
        return self._run(replay_of(job, DeadLetterSource(self._box.place)), run=run)

    def expire(self) -> None:
        """Let the leases of whoever owns output and letters be over."""
        key = "_batchkit/owner.json"
        if key in self._data.names():
            store = self._data.store()
            record = json.loads(self._data.content(key))
            store.put(key, json.dumps({**record, "lease_until": 0.0}).encode())
            store.close()
        self._box.expire()

    def picture(self) -> dict[str, Any]:
        """Return what a consumer, and a person, find at both, free of names that may differ."""
        verified = Published(self._data).verify()
        self._box.verify(verified)
        counts = self._data.manifest()["counts"]
        letters = self._box.letters()
        return {
            "whole": verified.whole,
            "lines": sorted(self._data.lines()),
            "letters": sorted([letter["id"], letter.get("replays", 0)] for letter in letters),
            "records": sorted((letter["record"] for letter in letters), key=json.dumps),
            "counts": {name: counts[name] for name in ("read", "filtered", "written", "dead_lettered")},
            "leftovers": [
                name
                for name in self._data.names()
                if "_batchkit/" in name and not name.endswith("owner.json")
            ]
            + self._box.leftovers(),
        }

    def _job(self, transform: Any) -> dict[str, Any]:
        return {
            "name": "dag.export",
            "source": IterableSource(records=orders, key="number"),
            "sink": ObjectStorageSink(url=self._data.url),
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
                connections=self._box.connections,
            )
            .run()
            .to_dict()
        )


def points(
    place: Place, letters: LetterBox | None, folder: Path, *, then: Then, every: int
) -> Iterator[dict[str, Any]]:
    """Kill something at each of its moments; yield what is there once another leg has ended.

    :param letters: where the letters lie, None: beside the output.
    :param then: after a killed replay the ``same`` goes on, or an ``other`` one begins; or it is the
        ``export`` that is killed, and goes on.
    :param every: only each so-manieth moment.
    """

    def killed(world: World, moment: int) -> list[str]:
        probe = At(moment, signal.SIGKILL)
        with probing(probe):
            world.export() if then == "export" else world.replay()
        return probe.moments

    reference = World(place, folder, "reference", letters=letters)
    if then != "export":
        in_child(reference.export)
    moments = in_child(partial(killed, reference, 0))
    yield {"moments": moments, "picture": in_child(reference.picture)}
    for moment in range(every, len(moments) + 1, every):
        world = World(place, folder, f"{then}-{moment}", letters=letters)
        if then != "export":
            in_child(world.export)
        ended = in_child(partial(killed, world, moment))
        if then == "other":
            in_child(world.expire)
        again: dict[Then, Callable[[], Any]] = {
            "same": world.replay,
            "other": partial(world.replay, "replay-2"),
            "export": world.export,
        }
        in_child(again[then])
        yield {
            "point": f"{moment} {moments[moment - 1]}",
            "killed": ended == signal.SIGKILL,
            "picture": in_child(world.picture),
        }


def box_of(settings: dict[str, Any]) -> LetterBox | None:
    """Return where the letters lie, None beside the output; its client is imported for all the children."""
    if "index" in settings:
        import elasticsearch  # noqa: F401  # only to have it imported

        return IndexBox(ElasticsearchEndpoint(settings["url"]), settings["index"])
    if "table" in settings:
        import psycopg  # noqa: F401  # likewise

        return TableBox(settings["endpoint"], settings["table"])
    return None


def main(settings: dict[str, Any]) -> None:
    """Print one line per point."""
    connections = S3Connections(**settings["connections"])
    place = Place(url=settings["url"], connections=connections)
    if connections.endpoint_url:
        # The first client reads boto3's service models, which takes long; the children inherit them.
        connections.client("s3", "aws_default", timeouts=Timeouts()).close()
    letters, folder = box_of(settings["letters"]), Path(settings["folder"])
    for found in points(place, letters, folder, then=settings["then"], every=settings["every"]):
        print(json.dumps(found), flush=True)  # noqa: T201  # the parent reads it


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
