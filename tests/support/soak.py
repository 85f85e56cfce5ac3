"""Random jobs in random trouble, for as long as one likes, each compared with its source in the end.

``python -m tests.support.soak`` (``make soak``) starts the servers, breaks at least 300 legs off in every way
that :mod:`tests.support.soak_legs` knows, and writes what it counted into ``docs/reliability.md``. On the
first difference it ends, keeps everything, and says how to see it again. The seed decides what is copied and
what happens to each leg; what the clock decides may fall otherwise.
"""

from __future__ import annotations

import argparse
import json
import platform
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random

from tests.support.fault_report import PAGE, write
from tests.support.forking import in_child
from tests.support.soak_children import Child, Command, changed_meanwhile, start
from tests.support.soak_jobs import SoakJob, draw
from tests.support.soak_legs import Ended, SoakError, Trouble, draw_trouble, tokens_of
from tests.support.soak_oracle import Oracle
from tests.support.soak_servers import Proxies, Servers, own_servers, proxies

BEGIN, END = "<!-- written by make soak: begin -->", "<!-- written by make soak: end -->"
MOST_TROUBLES = 7
MOST_LEGS = 60
RESTARTS = 3
_CALM = Trouble()
_BROKEN_OFF = {"stopped", "gave up", "superseded", "killed", "frozen"}


@dataclass
class Tally:
    """What was counted.

    :param cycles: interrupted legs after which the run went on, by kind of trouble.
    :param jobs: compared, by source and target.
    :param thawed: how legs ended that were frozen while others went on.
    """

    cycles: Counter[str] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    thawed: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    legs: int = 0
    records: int = 0
    letters: int = 0
    late: int = 0
    broken: int = 0
    restarts: int = 0


class Soak:
    """Does job after job.

    :param servers: where everything is.
    :param proxies: before them.
    :param seed: of it all.
    :param restart: kills a server and gives what starts it again, by its name; empty: they are not ours.
    """

    def __init__(
        self,
        servers: Servers,
        proxies: Proxies,
        *,
        seed: int,
        restart: dict[str, Callable[[], Callable[[], None]]],
    ) -> None:
        self.tally = Tally()
        self._servers = servers
        self._proxies = proxies
        self._seed = seed
        self._restart = restart

    def job(self, number: int) -> None:
        """Do one job and compare what came of it.

        :raises SoakError: something was lost, doubled, changed, left over or hangs.
        """
        job = draw(self._seed, number, sources=self._servers.sources)
        random = Random(f"trouble {self._seed}/{number}")
        self._servers.job_folder(job).mkdir()
        ever_thawed: frozenset[str] = frozenset()
        for run in range(len(job.runs)):
            self._servers.fill(job, run)
            with changed_meanwhile(job, self._servers, run), ExitStack() as stack:
                thawed = self._run(job, run, random, stack)
            ever_thawed |= thawed
            self._compare(job, run, thawed, ever_thawed)
        self.tally.jobs[f"{job.source} to {job.target}"] += 1
        self._servers.empty(job)
        shutil.rmtree(self._servers.job_folder(job))

    def _run(self, job: SoakJob, run: int, random: Random, stack: ExitStack) -> frozenset[str]:
        """Get one run into trouble, then through to its end; thaw what is frozen at some time.

        :param stack: ends what is left in the end.
        :returns: the tokens of the legs that were thawed.
        """
        troubles = iter([draw_trouble(random, job, run) for _ in range(random.randint(1, MOST_TROUBLES))])
        frozen: list[Child | Command] = []
        thawed: set[str] = set()
        completed = False
        self.tally.runs += 1
        for _ in range(MOST_LEGS):
            trouble = next(troubles, _CALM)
            leg = start(job, run, self._reached(trouble), trouble)
            ended = self._ended(leg, trouble, random)
            self.tally.legs += 1
            if ended.how == "frozen":
                frozen.append(leg)
                stack.callback(leg.signal, signal.SIGKILL)
            if ended.how in _BROKEN_OFF:
                self.tally.cycles[trouble.kind] += 1
            while frozen and (ended.how == "completed" or random.random() < 0.3):
                self._thaw(frozen[0])
                thawed |= tokens_of(frozen.pop(0).pid, job, self._servers)
            if ended.how == "completed":
                if completed or job.by_command:  # the same command begins another run
                    return frozenset(thawed)
                completed, troubles = True, iter(())
        raise SoakError(f"{job.name}, run {run}, was not complete after {MOST_LEGS} legs")

    def _reached(self, trouble: Trouble) -> Servers:
        """Return how a leg reaches the servers: through the proxies only where they shall break something."""
        if trouble.kind == "server away":
            self._proxies.order(passing=trouble.at, seed=trouble.seed)
        elif trouble.kind == "answers broken":
            self._proxies.order(share=0.02 + 0.2 * (trouble.at % 5) / 4, seed=trouble.seed)
        else:
            return self._servers
        return self._proxies.behind

    def _ended(self, leg: Child | Command, trouble: Trouble, random: Random) -> Ended:
        ended = None
        if trouble.kind.endswith("any time"):
            ended = leg.wait(trouble.seconds)
            if ended is None and trouble.signal is not None:
                leg.signal(trouble.signal)
        elif trouble.kind == "sessions cut":
            ended = leg.wait(trouble.seconds)
            self._servers.cut_sessions()
        elif trouble.kind == "server killed" and self._restart and self.tally.restarts < RESTARTS:
            self.tally.restarts += 1
            ended = leg.wait(trouble.seconds)
            back = self._restart[random.choice(sorted(self._restart))]()
            ended = ended or leg.wait(random.uniform(0, 2))
            back()
        ended = ended or leg.wait_to_end()
        if trouble.kind in {"server away", "answers broken"}:
            self.tally.broken += self._proxies.order()
        return ended

    def _thaw(self, leg: Child | Command) -> None:
        leg.signal(signal.SIGCONT)
        self.tally.thawed[leg.wait_to_end().how] += 1

    def _compare(self, job: SoakJob, run: int, thawed: frozenset[str], ever_thawed: frozenset[str]) -> None:
        oracle = Oracle(job, self._servers, thawed=thawed, ever_thawed=ever_thawed)
        found = in_child(partial(oracle.compare, run))
        self.tally.late += found["late"]
        self.tally.records += found["records"]
        self.tally.letters += found["letters"]
        if found["differences"]:
            raise SoakError(f"{job.name}, run {run}: " + "\n".join(found["differences"]))


def text(tally: Tally, *, seed: int, seconds: float) -> str:
    """Return what is written into the page."""
    when = datetime.now(UTC).date().isoformat()
    minutes = f"{seconds / 60:,.0f} minutes"
    thawed = ", ".join(f"{count:,} {how}" for how, count in tally.thawed.most_common()) or "none"
    jobs = ", ".join(f"{count:,} from {name}" for name, count in sorted(tally.jobs.items()))
    summary = (
        f"Run on {when} with Python {platform.python_version()}, seed {seed}, in {minutes}: "
        f"{tally.jobs.total():,} jobs ({jobs}), {tally.runs:,} runs, {tally.legs:,} legs, of which "
        f"**{tally.cycles.total():,} were broken off and gone on from**. Compared with their sources: "
        f"{tally.records:,} records and {tally.letters:,} dead letters. "
        "**Lost: 0. Doubled: 0. Changed: 0.**"
    )
    rest = (
        f"Legs that were frozen while others went on ended, once thawed: {thawed}; objects that they put "
        f"into their own staging only then, where nothing counts: {tally.late:,}. "
        f"Requests broken by the proxies: {tally.broken:,}. "
        f"Servers killed and started again: {tally.restarts}."
    )
    rows = [f"| {kind} | {count:,} |" for kind, count in tally.cycles.most_common()]
    return "\n".join([summary, "", "| what broke a leg off | legs |", "|---|---|", *rows, "", rest])


def soak(
    servers: Servers,
    *,
    seed: int,
    cycles: int,
    seconds: float = float("inf"),
    first: int = 1,
    jobs: int | None = None,
    restart: dict[str, Callable[[], Callable[[], None]]] | None = None,
    say: Callable[[str], None] = print,
) -> Tally:
    """Do jobs until enough legs were broken off.

    :param first: number of the first job.
    :param jobs: at most so many.
    :param restart: as :class:`Soak` takes it.
    :raises SoakError: something was lost, doubled, changed, left over or hangs.
    """
    began = time.monotonic()
    with proxies(servers) as between:
        doing = Soak(servers, between, seed=seed, restart=restart or {})
        number = first
        while (
            doing.tally.cycles.total() < cycles
            and time.monotonic() - began < seconds
            and (jobs is None or number < first + jobs)
        ):
            try:
                doing.job(number)
            except BaseException as error:
                say(f"job {number} of seed {seed}: {draw(seed, number, sources=servers.sources)}")
                say(f"again: python -m tests.support.soak --seed {seed} --first {number} --jobs 1")
                say(f"everything is kept in {servers.folder}: {error}")
                raise
            say(f"{doing.tally.cycles.total():,} cycles after job {number}")
            number += 1
        return doing.tally


def main(arguments: Sequence[str]) -> int:
    """Soak as long as was asked; write the page when it is a whole soak, and nothing differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.soak", description=__doc__)
    parser.add_argument("--cycles", type=int, default=300, help="legs to break off")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after this time")
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--first", type=int, default=1, help="number of the first job")
    parser.add_argument("--jobs", type=int, default=None, help="at most so many jobs")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the result is written")
    parser.add_argument("--servers", type=Path, help="JSON with the servers to use; nothing is written then")
    given = parser.parse_args(arguments)
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    limits = {
        "seed": seed,
        "cycles": given.cycles,
        "seconds": given.minutes * 60,
        "first": given.first,
        "jobs": given.jobs,
    }
    if given.servers is not None:
        tally = soak(Servers(**json.loads(given.servers.read_text())), **limits)
        sys.stdout.write(f"{json.dumps({'cycles': tally.cycles, 'records': tally.records})}\n")
        return 0
    fast = Path("/dev/shm")  # noqa: S108  # every save is synced: on a disk that is most of the time
    folder = Path(tempfile.mkdtemp(prefix="batchkit-soak-", dir=fast if fast.is_dir() else None))
    began = time.monotonic()
    with own_servers(folder) as (servers, restart):
        tally = soak(servers, restart=restart, **limits)
    shutil.rmtree(folder)
    if given.jobs is None and given.first == 1:
        result = text(tally, seed=seed, seconds=time.monotonic() - began)
        write(result, given.page, begin=BEGIN, end=END)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
