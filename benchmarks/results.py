"""What came out, as the Markdown of ``docs/performance.md``: no number in it is written by hand."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks import elasticdump
from benchmarks.contenders import DRAIN, DRAINS, ELASTICDUMP, OURS, SCAN
from benchmarks.measure import Run
from benchmarks.servers import HEAP
from tests.support.elasticsearch_distribution import VERSION as SERVER_VERSION

BEGIN, END = "<!-- made by make bench: begin -->", "<!-- made by make bench: end -->"
_WORKING = re.compile(r"([\d,]+) records/s")
_PACKAGES = ("elasticsearch", "boto3", "msgspec", "isal", "moto", "apache-airflow")


@dataclass(frozen=True, kw_only=True)
class Results:
    """All that was measured.

    :param records: how many orders.
    :param order_bytes: average size of one, as it is stored.
    :param runs: of each contender, in order.
    :param profile: what ``profiled_copy`` wrote.
    :param in_airflow: what ``in_airflow`` wrote; None where it was left out.
    """

    records: int
    order_bytes: float
    runs: Mapping[str, Sequence[Run]]
    profile: Mapping[str, Any]
    in_airflow: Mapping[str, Any] | None

    def best(self, name: str) -> Run:
        """Return a contender's shortest run."""
        return min(self.runs[name], key=lambda run: run.seconds)

    def rate(self, name: str) -> float:
        """Return the records per second of a contender's shortest run, its start-up included."""
        return self.records / self.best(name).seconds

    def per_million(self, seconds: float) -> float:
        """Return seconds per million records."""
        return seconds * 1_000_000 / self.records


def markdown(results: Results, *, today: str) -> str:
    """Return everything as Markdown.

    :param today: the date, as text.
    """
    return "\n".join(
        [*_machine(results, today), "", *_table(results), "", *_verdicts(results), "", *_profile(results)]
    )


def write_into(page: Path, text: str) -> None:
    """Replace what stands between the two marks of a page.

    :raises ValueError: the page lacks a mark.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name} lacks the marks between which the numbers stand")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def _machine(results: Results, today: str) -> Iterator[str]:
    memory = psutil.virtual_memory().total / 1024**3
    load = os.getloadavg()[0]
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    yield (
        f"{today}: {results.records:,} orders of {results.order_bytes:.0f} bytes, two shards, on "
        f"{psutil.cpu_count()} cores and {memory:.0f} GiB, shared by clients and both servers; load "
        f"{load:.1f} at the end. {platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}, Elasticsearch {SERVER_VERSION} with a heap of {HEAP}, {packages}, "
        f"elasticdump {elasticdump.VERSION}."
    )


def _table(results: Results) -> Iterator[str]:
    yield (
        "| | records/s, best | median | of the drain | client CPU s per million | Elasticsearch CPU s "
        "| S3 CPU s | peak MB |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    drain = results.rate(DRAIN)
    for name, runs in results.runs.items():
        best, rate = results.best(name), results.rate(name)
        median = results.records / statistics.median(run.seconds for run in runs)
        client, search, s3 = (
            statistics.median(results.per_million(getattr(run, kind)) for run in runs)
            for kind in ("client_cpu", "elasticsearch_cpu", "s3_cpu")
        )
        yield (
            f"| {name} | {rate:,.0f} | {median:,.0f} | {rate / drain:.2f} | {client:.2f} | {search:.2f} "
            f"| {s3:.2f} | {best.peak_bytes / 1e6:.0f} |"
        )


def _verdicts(results: Results) -> Iterator[str]:
    whole, engine = results.rate(OURS), working_rate(results.best(OURS))
    for peer in (SCAN, ELASTICDUMP):
        if peer in results.runs:
            yield f"- {whole / results.rate(peer):.1f} × {peer}."
    yield f"- Without the start of Python, from the engine's start to its end: {engine:,.0f} records/s."
    for drain in DRAINS:
        rate = results.rate(drain)
        yield f"- {whole / rate:.2f} × the {drain}; {engine / rate:.2f} × from the engine's start to its end."
    best, cores = results.best(OURS), psutil.cpu_count() or 1
    cpu = best.client_cpu + best.elasticsearch_cpu + best.s3_cpu
    yield (
        f"- Its client and both servers used {cpu:.1f} CPU s together: on {cores} cores never less than "
        f"{cpu / cores:.1f} s, and it took {best.seconds:.1f} s."
    )
    wall = results.profile["seconds"]
    saves = results.profile["stages"]["save checkpoints"]["wall"]
    yield f"- Checkpoints took {saves / wall:.1%} of the time."
    if results.in_airflow is not None:
        rate = results.in_airflow["records"] / results.in_airflow["seconds"]
        yield (
            f"- The operator inside Airflow, after start-up: {rate:,.0f} records/s, "
            f"{rate / engine:.2f} × the command line's {engine:,.0f}."
        )


def _profile(results: Results) -> Iterator[str]:
    yield "| stage of the client | CPU s per million | wall s, over all threads | calls |"
    yield "|---|---|---|---|"
    stages = sorted(results.profile["stages"].items(), key=lambda item: -item[1]["cpu"])
    for name, spent in stages:
        wall = f"{spent['wall']:.2f}" if spent["wall"] else ""
        yield f"| {name} | {results.per_million(spent['cpu']):.2f} | {wall} | {spent['calls']:,} |"
    cpu, wall = results.per_million(results.profile["cpu"]), results.profile["seconds"]
    yield f"| **all** | **{cpu:.2f}** | {wall:.2f} from begin to end | |"


def working_rate(run: Run) -> float:
    """Return the records per second that ``batchkit copy`` reports: from its engine's start to its end."""
    found = _WORKING.search(run.output)
    if found is None:
        raise ValueError("batchkit copy did not say its records/s")
    return float(found[1].replace(",", ""))
