"""Legs of a soak, each in a process of its own, and the trouble that they get into."""

from __future__ import annotations

import faulthandler
import logging
import os
import secrets
import signal
import traceback
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeAlias

from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch import ElasticsearchSource
from airflow_batchkit.connectors.object_storage import DeadLetters, ObjectStorageSink
from airflow_batchkit.connectors.sql import SqlSource
from airflow_batchkit.engine import keeping
from airflow_batchkit.engine.checkpoint import CheckpointStore
from airflow_batchkit.engine.exceptions import StoppedError, SupersededError, TransientError
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, ErrorBudget, RateLimit, Timeouts
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.stores.file import FileStore
from airflow_batchkit.stores.target import TARGET_KEY, target_store
from tests.support.forking import At
from tests.support.soak_jobs import SoakJob, transform
from tests.support.soak_servers import Servers

Kind: TypeAlias = Literal[
    "none",
    "SIGKILL at an effect",
    "SIGKILL at any time",
    "SIGTERM at an effect",
    "SIGTERM at any time",
    "frozen, and thawed later",
    "server away",
    "answers broken",
    "sessions cut",
    "server killed",
]
LONGEST_LEG = 90.0
_SIGNALS: dict[str, signal.Signals] = {
    "SIGKILL": signal.SIGKILL,
    "SIGTERM": signal.SIGTERM,
    "frozen,": signal.SIGSTOP,
}
_QUICK = timedelta(milliseconds=20)
_SHORT = Timeouts(
    connect=timedelta(seconds=3),
    read=timedelta(seconds=5),
    request=timedelta(seconds=10),
    batch=timedelta(seconds=30),
    no_progress=timedelta(seconds=40),
)


class SoakError(AssertionError):
    """What must never happen has happened."""


@dataclass(frozen=True)
class Trouble:
    """What happens to one leg.

    :param kind: what.
    :param at: at which of its effects.
    :param seconds: how long after its beginning, where it is not at an effect.
    :param seed: of what the proxies do.
    """

    kind: Kind = "none"
    at: int = 0
    seconds: float = 0.0
    seed: int = 0

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that the leg gets, if it gets one."""
        return _SIGNALS.get(self.kind.partition(" ")[0])

    def probe(self, job: SoakJob) -> At:
        """Return what the leg's effects ask."""
        at_effect = self.signal is not None and not self.kind.endswith("any time")
        moment = self.at if at_effect else 0
        if self.signal is signal.SIGSTOP and not job.beside:
            return _AtButSaves(moment, signal.SIGSTOP)
        return At(moment, self.signal or signal.SIGKILL)


class _AtButSaves(At):
    """Passes the moment before a save over: a store that cannot compare cannot refuse the save of a leg that
    froze right there (docs/limits.md).
    """

    @override
    def __call__(self, name: str, when: Literal["before", "after"]) -> None:
        if self._moment == len(self.moments) + 1 and (when, name) == ("before", "checkpoint.save"):
            self._moment += 1
        super().__call__(name, when)


@dataclass
class Ended:
    """How a leg ended.

    :param how: ``completed``, ``stopped``, ``gave up``, ``superseded``, ``killed`` or ``frozen``.
    :param why: in its own words.
    """

    how: str
    why: str = ""


def job_of(job: SoakJob, servers: Servers) -> Job:
    """Return a job as the engine takes it."""
    url = servers.url(job)
    source: Any = (
        ElasticsearchSource(conn_id="elasticsearch", index=job.name)
        if job.source == "elasticsearch"
        else SqlSource(conn_id="sql", table=job.name)
    )
    return Job(
        name=job.name,
        source=source,
        sink=ObjectStorageSink(url=f"{url}/data", compression=job.compression),
        transform=transform if job.transforms else None,
        batch=BatchPolicy(max_records=job.max_records, max_bytes=job.max_bytes),
        throttle=None if job.rate is None else RateLimit(records_per_second=job.rate),
        error_budget=ErrorBudget(max_dead_letters=100_000 if job.transforms else 0),
        dead_letters=DeadLetters(f"{url}/letters") if job.transforms else None,
        batch_retry=BatchRetry(max_tries=2, first_wait=_QUICK, max_wait=_QUICK),
        timeouts=_SHORT,
        readers=job.readers,
    )


def pipeline_of(job: SoakJob, run: int, servers: Servers, stop: Stop) -> Pipeline:
    """Return one leg of a run."""
    engine_job, connections = job_of(job, servers), servers.connections(job)
    store: CheckpointStore = (
        target_store(engine_job, connections, logging.getLogger("soak"))
        if job.beside
        else FileStore(servers.job_folder(job) / "checkpoints")
    )
    return Pipeline(
        engine_job,
        identity=RunIdentity(run=f"run-{run}"),
        store=store,
        key=TARGET_KEY if job.beside else f"run-{run}",
        connections=connections,
        stop=stop,
    )


def _note_tokens(folder: Path) -> None:
    """Note each token that this process makes, in a file that is named by it, before the token is used."""
    make = secrets.token_hex

    def noted(nbytes: int | None = None) -> str:
        token = make(nbytes)
        with (folder / f"tokens-{os.getpid()}").open("a") as file:
            file.write(f"{token}\n")
        return token

    secrets.token_hex = noted


def tokens_of(pid: int, job: SoakJob, servers: Servers) -> set[str]:
    """Return the tokens that a process made: usually one."""
    noted = servers.job_folder(job) / f"tokens-{pid}"
    return set(noted.read_text().split()) if noted.exists() else set()


def run_leg(job: SoakJob, run: int, servers: Servers, probe: At) -> dict[str, str]:
    """Be one leg: in a child."""
    faulthandler.dump_traceback_later(LONGEST_LEG - 10, exit=True)
    log = servers.job_folder(job) / "log"
    logging.basicConfig(filename=log, level=logging.INFO, format="%(process)d %(asctime)s %(message)s")
    # Legs are short here: with a save a second each would begin where the one before it began.
    keeping.SAVE_EVERY_SECONDS = 0.02
    _note_tokens(servers.job_folder(job))
    stop = Stop()
    signal.signal(signal.SIGTERM, lambda *_: stop.ask("SIGTERM"))
    try:
        with probing(probe):
            pipeline_of(job, run, servers, stop).run()
    except StoppedError as error:
        return {"how": "stopped", "why": str(error)}
    except TransientError as error:
        return {"how": "gave up", "why": str(error)}
    except SupersededError as error:
        return {"how": "superseded", "why": str(error)}
    except BaseException:  # noqa: BLE001  # the parent ends the soak with it
        return {"how": "broken", "why": traceback.format_exc()}
    return {"how": "completed", "why": ""}


def draw_trouble(random: Random, job: SoakJob, run: int) -> Trouble:
    """Draw what happens to one leg of a run."""
    if job.by_command:
        kinds: dict[Kind, int] = {"SIGKILL at any time": 2, "SIGTERM at any time": 1}
        return Trouble(random.choices([*kinds], [*kinds.values()])[0], seconds=random.uniform(0.4, 2.5))
    kinds = {
        "SIGKILL at an effect": 6,
        "SIGKILL at any time": 4,
        "SIGTERM at an effect": 2,
        "SIGTERM at any time": 1,
        "frozen, and thawed later": 3,
    }
    if job.source == "elasticsearch" or job.target == "s3":
        kinds |= {"server away": 1, "answers broken": 2}
    if job.source == "postgres":
        kinds |= {"sessions cut": 1, "server killed": 1}
    batches = 1 + job.runs[run] // (job.max_records or 100)
    return Trouble(
        random.choices([*kinds], [*kinds.values()])[0],
        at=random.randint(1, 20 + 4 * batches),
        seconds=random.uniform(0.0, 0.25) + (random.uniform(0, 0.4) if job.rate else 0.0),
        seed=random.getrandbits(32),
    )
