"""Kills, or freezes and thaws, a leg at each side effect of a sink, and goes on with another.

Run as a program of its own (``python -m tests.support.publish_sweep SETTINGS.json``): it imports everything
once and forks a child for each leg, because only a process without threads can be forked safely, and only a
process can be killed or frozen for real. It prints one JSON line per point.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from airflow_batchkit.connectors.object_storage import DeadLetters
from airflow_batchkit.engine.checkpoint import Frontier, PartitionProgress
from airflow_batchkit.engine.dead_letters import envelope
from airflow_batchkit.engine.exceptions import BatchkitError
from airflow_batchkit.engine.failpoints import effect, probing
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.engine.sink import BatchKey, Inherited, Leg
from airflow_batchkit.engine.types import Rejection
from tests.support.forking import At, fork, in_child
from tests.support.object_storage import Place, S3Connections, publication, records

PARTITIONS = ("orders.0", "orders.1")
BATCHES = 2
RECORDS = 4
FINISHED = Frontier(len(PARTITIONS))


class Progress(msgspec.Struct):
    """What the engine's checkpoint would say."""

    token: str = ""
    frontier: Frontier = Frontier()
    done: tuple[int, ...] = (0, 0)


class Run:
    """One run, of which every leg is a process.

    :param place: where to write.
    :param folder: for the progress.
    :param name: the run.
    :param generation: names its output.
    :param batches: batches of each partition.
    """

    def __init__(
        self, place: Place, folder: Path, *, name: str, generation: str, batches: int = BATCHES
    ) -> None:
        self.place = place
        self._name = name
        self._generation = generation
        self._batches = batches
        self._saved = folder / f"{place.url.rpartition('/')[2]}-{name}.json"
        self._progress = Progress()

    def leg(self) -> None:
        """Run one leg from what is saved to its end."""
        if self._saved.exists():
            self._progress = msgspec.json.decode(self._saved.read_bytes(), type=Progress)
        before = self._progress
        inherited = Inherited(token=before.token, frontier=before.frontier) if before.token else None
        leg = Leg(
            job="sweep",
            run=self._name,
            token=secrets.token_hex(8),
            generation=self._generation,
            mode="real",
            partitions=PARTITIONS,
            inherited=inherited,
        )
        sink = self.place.below("data").sink()
        letters = DeadLetters(self.place.below("letters").url).open(self.place.context)
        sink.start(leg)
        letters.start(leg)
        self._save(Progress(leg.token, before.frontier.for_new_leg(), before.done))
        for partition in range(len(PARTITIONS)):
            for number, window in enumerate(range(before.done[partition], self._batches), start=1):
                self._batch(sink, letters, leg, BatchKey(partition=partition, number=number), window)
        given_up = len(PARTITIONS) * self._batches
        written = given_up * RECORDS
        final = publication(written, self._progress.frontier, dead_lettered=given_up)
        assert letters.settle(final)["count"] == given_up
        assert sink.publish(final)["records"] == written
        sink.release()
        sink.close()
        letters.close()

    def _batch(self, sink: Any, letters: Any, leg: Leg, key: BatchKey, window: int) -> None:
        ids = [f"{key.partition}-{window}-{number}" for number in range(RECORDS)]
        writer = sink.begin(key)
        writer.add(records(ids))
        writer.write()
        rejection = Rejection(
            record=records([f"bad-{key.partition}-{window}"])[0],
            stage="transform",
            error_class="record",
            error_type="ValueError",
            message="bad",
        )
        letters.put(key, [envelope(rejection, leg=leg, key=key, at=0.0)])
        done = list(self._progress.done)
        done[key.partition] = window + 1
        finished = window + 1 == self._batches
        line = () if finished else (PartitionProgress(key.partition, {"window": window}, key.number),)
        sink.renew()
        self._save(Progress(leg.token, Frontier(key.partition + 1, line), (done[0], done[1])))

    def _save(self, progress: Progress) -> None:
        with effect("checkpoint.save"):
            self._progress = progress
            temporary = self._saved.with_suffix(".tmp")
            temporary.write_bytes(msgspec.json.encode(progress))
            temporary.replace(self._saved)


def picture(place: Place) -> dict[str, Any]:
    """Return everything that lies at a place, free of what differs from leg to leg."""
    names = place.names()
    manifest = place.below("data").manifest()
    told = {
        key: value
        for key, value in manifest.items()
        if key not in {"created_at", "token", "location", "legs"}
    }
    letters = [
        json.loads(line)["id"]
        for name in names
        if name.startswith("letters/") and name.endswith(".ndjson")
        for line in place.content(name).decode().splitlines()
    ]
    owner = json.loads(place.content("data/_batchkit/owner.json"))
    return {
        "names": names,
        "manifest": told,
        "ids": place.below("data").ids(),
        "letters": letters,
        "owner": [owner["run"], owner["released"], owner["untidy"]],
    }


def expire(place: Place) -> None:
    """Let the lease of whoever owns the output be over."""
    store = place.store()
    record = json.loads(place.content("data/_batchkit/owner.json"))
    store.put("data/_batchkit/owner.json", json.dumps({**record, "lease_until": 0.0}).encode())
    store.close()


def run_probed(run: Run, probe: At) -> list[str]:
    """Run one leg under a probe; a frozen one may be refused when it thaws."""
    with probing(probe), contextlib.suppress(BatchkitError):
        run.leg()
    return probe.moments


def points(place: Place, folder: Path, *, mode: str, every: int) -> Iterator[dict[str, Any]]:
    """Kill or freeze at each moment of an uninterrupted leg; yield what another one leaves there."""

    def new(name: str, run: str = "run-1", generation: str = "0a0a0a0a", batches: int = BATCHES) -> Run:
        return Run(place.below(name), folder, name=run, generation=generation, batches=batches)

    in_child(new("reference", "run-0", "00000000", batches=1).leg)
    reference = new("reference")
    moments = in_child(lambda: run_probed(reference, At(0, signal.SIGKILL)))
    last = reference
    if mode == "next run":
        last = new("reference", "run-2", "0b0b0b0b")
        in_child(last.leg)
    yield {"moments": moments, "picture": in_child(lambda: picture(last.place))}
    start = 1 if mode == "kill" else moments.index("before dead_letters.copy") + 1
    for moment in range(start, len(moments) + 1, every):
        name = f"{mode.replace(' ', '-')}-{moment}"
        in_child(new(name, "run-0", "00000000", batches=1).leg)
        hit = new(name)
        if mode == "kill":
            ended = in_child(partial(run_probed, hit, At(moment, signal.SIGKILL)))
            in_child(hit.leg)
            struck = ended == signal.SIGKILL
        else:
            successor = new(name, "run-2", "0b0b0b0b") if mode == "next run" else hit
            struck = freeze(hit, successor, moment)
        found = in_child(partial(picture, hit.place))
        yield {"point": f"{moment} {moments[moment - 1]}", "struck": struck, "picture": found}


def freeze(run: Run, successor: Run, moment: int) -> bool:
    """Freeze a leg, let another one publish, thaw the first and let it end."""
    child, pipe = fork(lambda: run_probed(run, At(moment, signal.SIGSTOP)))
    _, status = os.waitpid(child, os.WUNTRACED)
    stopped = os.WIFSTOPPED(status)
    if stopped:
        in_child(lambda: expire(run.place))
        in_child(successor.leg)
        os.kill(child, signal.SIGCONT)
        os.waitpid(child, 0)
    with pipe:
        pipe.read()
    return stopped


def main(settings: dict[str, Any]) -> None:
    """Print one line per point."""
    connections = S3Connections(**settings["connections"])
    place = Place(url=settings["url"], connections=connections)
    # The first client reads boto3's service models, which takes long; the children inherit them.
    place.store().close()
    if connections.endpoint_url:
        connections.client("s3", "aws_default", timeouts=Timeouts()).close()
    for found in points(place, Path(settings["folder"]), mode=settings["mode"], every=settings["every"]):
        print(json.dumps(found), flush=True)  # noqa: T201  # the parent reads it


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
