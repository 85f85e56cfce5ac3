"""Kills a run before and after every side effect, resumes it, and tells what the target looks like then.

Run as a program of its own (``python -m tests.support.kill_sweep SETTINGS.json``): it imports everything once
and forks a child for each leg, because only a process without threads can be forked safely and only a process
can be killed for real. It prints one JSON line per kill point.
"""

from __future__ import annotations

import gzip
import json
import logging
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_batchkit.connectors.elasticsearch import ElasticsearchSource
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.connectors.sql import SqlSource
from airflow_batchkit.engine.exceptions import RecordError, StoppedError
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, ErrorBudget
from airflow_batchkit.stores.file import FileStore
from airflow_batchkit.stores.target import TARGET_KEY, target_store
from tests.support.connections import ServerConnections
from tests.support.forking import At, in_child

if TYPE_CHECKING:
    from airflow_batchkit.engine.source import Source

MOST_LEGS = 5
_STAYS = ("/owner.json", f"/checkpoint-{TARGET_KEY}.json")
MAY_DIFFER = {"batches", "retries", "bytes_read"}  # how the pages fell, not what was in them


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What to run, over and over.

    :param folder: for checkpoints, databases and the ``file://`` target.
    :param source: ``sqlite``, ``postgres`` or ``elasticsearch``.
    :param target: ``file`` or ``s3``.
    :param elasticsearch_url: where the index ``orders`` is.
    :param s3: endpoint, access key, secret key and bucket.
    :param postgres: where the table ``orders`` is.
    :param beside: the checkpoints lie beside the output, not in a folder.
    """

    folder: str
    source: str
    target: str
    elasticsearch_url: str = ""
    s3: dict[str, str] = field(default_factory=dict)
    postgres: dict[str, Any] = field(default_factory=dict)
    beside: bool = False

    def url(self, name: str) -> str:
        """Return the target of one run."""
        return (
            f"s3://{self.s3['bucket']}/{name}" if self.target == "s3" else f"file://{self.folder}/out/{name}"
        )

    @property
    def connections(self) -> ServerConnections:
        """Connections to the servers of the test."""
        return ServerConnections(
            elasticsearch_url=self.elasticsearch_url,
            s3=self.s3,
            sqlite_path=f"{self.folder}/orders.db",
            postgres=self.postgres,
        )

    def job(self, name: str) -> Job:
        """Return the job that writes to one target."""
        source: Source = (
            ElasticsearchSource(conn_id="elasticsearch", index="orders")
            if self.source == "elasticsearch"
            else SqlSource(conn_id="sql", table="orders")
        )
        return Job(
            name="sweep",
            source=source,
            sink=ObjectStorageSink(url=f"{self.url(name)}/data", conn_id="s3"),
            transform=poison,
            batch=BatchPolicy(max_records=9),
            error_budget=ErrorBudget(max_dead_letters=100),
            dead_letters=DeadLetters(f"{self.url(name)}/letters", conn_id="s3"),
        )


def poison(order: dict[str, Any]) -> dict[str, Any] | None:
    """Refuse some orders and filter others."""
    if order["number"] % 13 == 0:
        raise RecordError("a poisoned order")
    return None if order["number"] % 7 == 0 else order


def run_until_done(sweep: Sweep, name: str) -> dict[str, Any]:
    """Run leg after leg, as Airflow or a person would, until the job is complete."""
    for _ in range(MOST_LEGS):
        job = sweep.job(name)
        store = (
            target_store(job, sweep.connections, logging.getLogger("sweep"))
            if sweep.beside
            else FileStore(Path(sweep.folder) / "checkpoints")
        )
        pipeline = Pipeline(
            job,
            identity=RunIdentity(run="run-1"),
            store=store,
            key=TARGET_KEY if sweep.beside else name,
            connections=sweep.connections,
        )
        try:
            return pipeline.run().to_dict()
        except StoppedError:
            continue
    message = f"{name} was not complete after {MOST_LEGS} legs"
    raise RuntimeError(message)


def objects(sweep: Sweep, name: str) -> dict[str, bytes]:
    """Return everything that lies at a run's target, by its path below it."""
    if sweep.target == "file":
        root = Path(sweep.folder) / "out" / name
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    client = sweep.connections.client("s3", "s3", timeouts=sweep.job(name).timeouts)
    found: dict[str, bytes] = {}
    for page in client.get_paginator("list_objects_v2").paginate(
        Bucket=sweep.s3["bucket"], Prefix=f"{name}/"
    ):
        for entry in page.get("Contents", []):
            body = client.get_object(Bucket=sweep.s3["bucket"], Key=entry["Key"])["Body"].read()
            found[entry["Key"].removeprefix(f"{name}/")] = body
    return found


def picture(sweep: Sweep, name: str) -> dict[str, Any]:
    """Return what a consumer finds at a target, free of names and times that may differ between runs."""
    found = objects(sweep, name)
    manifest = json.loads(found["data/manifest.json"])
    listed = {f"data/{part['key'].rpartition('/')[2]}" for part in manifest["parts"]}
    lines = [line for key in sorted(listed) for line in gzip.decompress(found[key]).decode().splitlines()]
    letters = [
        json.loads(line)
        for key, body in found.items()
        if key.startswith("letters/") and key.endswith(".ndjson")
        for line in body.decode().splitlines()
    ]
    parts = {key for key in found if key.startswith("data/part-")}
    return {
        "lines": sorted(lines),
        "letters": sorted(json.dumps([letter["id"], letter["record"]]) for letter in letters),
        "counts": {name: count for name, count in manifest["counts"].items() if name not in MAY_DIFFER},
        "unlisted_parts": sorted(parts - listed),
        "missing_parts": sorted(listed - parts),
        "staging": sorted(key for key in found if "/_batchkit/" in key and not key.endswith(_STAYS)),
        "success": "data/_SUCCESS" in found,
    }


def kill_points(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Kill at each moment of an uninterrupted run; yield what was left and what came of it."""

    def counted() -> list[str]:
        probe = At(0, signal.SIGKILL)
        with probing(probe):
            run_until_done(sweep, "reference")
        return probe.moments

    moments = in_child(counted)
    yield {"moments": moments, "picture": in_child(partial(picture, sweep, "reference"))}
    for number, moment in enumerate(moments, start=1):
        name = f"kill-{number}"
        ended_by = in_child(partial(run_killed, sweep, name, number))
        report = in_child(partial(run_until_done, sweep, name))
        yield {
            "moment": f"{number} {moment}",
            "killed": ended_by == signal.SIGKILL,
            "legs": report["legs"],
            "picture": in_child(partial(picture, sweep, name)),
        }


def run_killed(sweep: Sweep, name: str, moment: int) -> None:
    """Run, to be killed at one moment."""
    with probing(At(moment, signal.SIGKILL)):
        run_until_done(sweep, name)


def warm_up(sweep: Sweep) -> None:
    """Import the clients, and read what they read at first, before the forking: each child then has it."""
    timeouts = sweep.job("warm-up").timeouts
    if sweep.s3:
        sweep.connections.client("s3", "s3", timeouts=timeouts).close()
    if sweep.elasticsearch_url:
        sweep.connections.client("elasticsearch", "elasticsearch", timeouts=timeouts).close()
    if sweep.postgres:
        sweep.connections.client("sql", "sql", timeouts=timeouts).close()


def settings_file(sweep: Sweep) -> Path:
    """Write the settings where the program finds them."""
    path = Path(sweep.folder) / "sweep.json"
    path.write_text(json.dumps(asdict(sweep)))
    return path


if __name__ == "__main__":
    settings = Sweep(**json.loads(Path(sys.argv[1]).read_text()))
    warm_up(settings)
    for found in kill_points(settings):
        print(json.dumps(found), flush=True)  # noqa: T201  # the parent reads it
