"""Runs the benchmark and writes its numbers into ``docs/performance.md``: ``make bench``.

``BENCH_RECORDS`` sets how many orders (default one million); with fewer than that, the page is left as it is.
``BENCH_ONLY_OURS=1`` leaves out the slow peers and Airflow.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import elasticdump, orders
from benchmarks.contenders import CHECKOUT, ELASTICDUMP, SCAN, Command, Contenders
from benchmarks.measure import Run, measured
from benchmarks.results import Results, markdown, write_into
from benchmarks.servers import Servers, running_servers

FULL = 1_000_000
FEW_RECORDS = 2_000
CACHE = CHECKOUT / ".cache" / "benchmarks"
PAGE = CHECKOUT / "docs" / "performance.md"


class Bench:
    """One whole benchmark.

    :param servers: that run.
    :param contenders: makes their commands.
    :param folder: for logs.
    """

    def __init__(self, servers: Servers, contenders: Contenders, folder: Path) -> None:
        self._servers = servers
        self._contenders = contenders
        self._folder = folder

    def run(self, records: int, *, only_ours: bool) -> Results:
        """Warm up, run all rounds, and profile."""
        contenders = self._contenders
        for command in contenders.warm_up():
            self._measured("warm-up", command)
        runs: dict[str, list[Run]] = {}
        for name in contenders.rounds:
            if only_ours and name in {SCAN, ELASTICDUMP}:
                continue
            run = self._measured(name, contenders.command(name, orders.INDEX))
            runs.setdefault(name, []).append(run)
            say(f"{name}: {records / run.seconds:,.0f} records/s, client CPU {run.client_cpu:.2f} s")
        profiled = self._measured("profile", contenders.profiled(orders.INDEX))
        profile = {**_last_json(profiled), "seconds": profiled.seconds}
        in_airflow = None
        if not only_ours:
            in_airflow = _last_json(self._measured("in Airflow", contenders.in_airflow(orders.INDEX)))
        sizes = [len(order.encode()) for order in orders.orders(FEW_RECORDS)]
        return Results(
            records=records,
            order_bytes=sum(sizes) / len(sizes),
            runs=runs,
            profile=profile,
            in_airflow=in_airflow,
        )

    def _measured(self, name: str, command: Command) -> Run:
        log = self._folder / f"{name.replace(' ', '-')}.log"
        return measured(command.line, environment=command.environment, log=log, servers_cpu=self._servers.cpu)


def say(text: str) -> None:
    """Tell who waits how far it is."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main() -> None:
    """Run everything; the numbers go to standard output, and into the page after a full run."""
    records = int(os.environ.get("BENCH_RECORDS", FULL))
    only_ours = bool(os.environ.get("BENCH_ONLY_OURS"))
    CACHE.mkdir(parents=True, exist_ok=True)
    program = None if only_ours else elasticdump.installed(CACHE)
    if program is None and not only_ours:
        say("without elasticdump: it needs node and npm")
    say("starting Elasticsearch and the S3 API")
    with (
        running_servers() as servers,
        tempfile.TemporaryDirectory(prefix="batchkit-bench-") as folder,
        elasticdump.answered_version() as version,
    ):
        say(f"indexing {records:,} orders: {json.dumps(orders.SETTINGS)}")
        orders.load(servers.elasticsearch, orders.FEW, FEW_RECORDS)
        orders.load(servers.elasticsearch, orders.INDEX, records)
        contenders = Contenders(servers, folder=Path(folder), program=program, version=version)
        results = Bench(servers, contenders, Path(folder)).run(records, only_ours=only_ours)
    text = markdown(results, today=datetime.now(tz=UTC).date().isoformat())
    sys.stdout.write(f"{text}\n")
    if records >= FULL and not only_ours:
        write_into(PAGE, text)


def _last_json(run: Run) -> dict[str, Any]:
    lines = [line for line in run.output.splitlines() if line.startswith("{")]
    last: dict[str, Any] = json.loads(lines[-1])
    return last


if __name__ == "__main__":
    main()
