"""Mutation testing: where the code is wrong, some test should fail.

``python -m tests.support.mutation [MODULE …]`` (``make mutants``) changes each module, a path below the
repository, in one small place at a time (:mod:`tests.support.mutants`), in a copy of the tree, and runs the
tests that run the changed line until one fails. A mutant that none of them notices has *survived*: a test is
missing, or the change does no harm (:mod:`tests.support.mutation_report` knows why).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import coverage
import hypothesis  # noqa: F401  # imported before the forks: no mutant has to import it again
import pytest

from tests.support.mutants import mutants
from tests.support.mutation_report import (
    Result,
    explanation,
    read_results,
    write_account,
    write_results,
)

MODULES: Mapping[str, Sequence[str]] = {
    "airflow_batchkit/engine": (
        "batching",
        "charging",
        "checkpoint",
        "finish",
        "isolating",
        "keeping",
        "lanes",
        "loop",
        "opening",
        "owner",
        "pipeline",
        "reading",
        "resumption",
        "stop",
        "tally",
        "throttle",
        "watch",
        "writing",
    ),
    "airflow_batchkit/engine/policies": ("budget", "retry"),
    "airflow_batchkit/stores": ("file", "target", "task_state", "variable"),
    "airflow_batchkit/connectors/object_storage": (
        "extension",
        "final",
        "manifest",
        "ownership",
        "publish",
        "staging",
    ),
}
DEFAULT = [f"{folder}/{name}.py" for folder, names in MODULES.items() for name in names]
SUITE = (
    "tests/unit/engine",
    "tests/unit/stores",
    "tests/unit/connectors/object_storage",
    "tests/contract/test_stores.py",
    "tests/contract/test_sinks.py",
    "tests/faults/test_engine_model.py",
    "tests/faults/test_engine_kill.py",
)
_COPIED = ("airflow_batchkit", "dags", "pyproject.toml", "tests")
_ALLOWED = "ignore:Module already imported"
_PYTEST = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--timeout=10", "-W", _ALLOWED)
_FIRST_TESTS = 15
_MOMENTS = itertools.count(1_000_000_000)
_SECONDS_OF_TESTS = 8.0
_SECONDS_PER_MUTANT = 60.0
_SECONDS_TO_MEASURE = 900.0
_DURATIONS, _LOG = Path("durations.json"), Path("tests.log")


class _Durations:
    """Notes how long each test takes."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        _DURATIONS.write_text(json.dumps(self._seconds))


def _in_child(work: Callable[[], int], *, seconds: float) -> int | None:
    """Do work in a forked child; return its exit status, None when it took too long and was killed."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        with _LOG.open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        status = 3
        try:
            status = int(work())
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):  # with whatever servers its tests had started
            os.killpg(child, signal.SIGKILL)


class Suite:
    """The tests, which lines each of them runs, and how long it takes; measured once."""

    def __init__(self) -> None:
        measuring = [*_PYTEST, "--cov=airflow_batchkit", "--cov-context=test", "--cov-report=", *SUITE]
        measure = partial(pytest.main, measuring, plugins=[_Durations()])
        if _in_child(measure, seconds=_SECONDS_TO_MEASURE) != 0:
            raise SystemExit(f"{_LOG.read_text()}\nThe tests fail without any mutant: mend them first.")
        self._seconds: dict[str, float] = json.loads(_DURATIONS.read_text())
        self._data = coverage.CoverageData()
        self._data.read()

    def tests_of(self, module: str, lines: Iterable[int]) -> list[str]:
        """Return the tests that run some of these lines, those of the module itself first, then the fastest.

        Where no single test runs them (they run when the module is imported): all that run any of its lines.
        """
        contexts = self._data.contexts_by_lineno(str(Path(module).resolve()))
        found = {context for line in lines for context in contexts.get(line, ())} - {""}
        if not found:
            found = {context for some in contexts.values() for context in some} - {""}
        tests = {context.rpartition("|")[0] for context in found}
        mirror = f"test_{Path(module).name}::"
        ordered = sorted(tests, key=lambda test: (mirror not in test, self._seconds.get(test, 0.0)))
        chosen: list[str] = []
        seconds = 0.0
        for test in ordered:
            seconds += self._seconds.get(test, 0.0)
            if chosen and seconds > _SECONDS_OF_TESTS:
                break
            chosen.append(test)
        return chosen


def survives(module: str, source: str, tests: list[str]) -> bool:
    """Run the tests against a mutant, whose text replaces the module's meanwhile; a few quick ones first."""
    path = Path(module)
    slow = [test for test in tests if test.startswith("tests/faults/")]
    quick = [test for test in tests if test not in slow]
    original = path.read_text()
    path.write_text(source)
    os.utime(path, times=(next(_MOMENTS),) * 2)  # Python compiles it again, also within the same second
    try:
        return all(
            _in_child(partial(pytest.main, [*_PYTEST, "-x", *some]), seconds=_SECONDS_PER_MUTANT) == 0
            for some in (quick[:_FIRST_TESTS], quick[_FIRST_TESTS:], slow)
            if some
        )
    finally:
        path.write_text(original)


def examine(module: str, suite: Suite, *, only: str) -> Result:
    """Try every mutant of a module; say at once which survived without an explanation."""
    source = Path(module).read_text()
    if not survives(module, source, suite.tests_of(module, range(source.count("\n")))):
        raise SystemExit(f"{_LOG.read_text()}\nThe tests of {module} fail by themselves: mend them first.")
    found = [mutant for mutant in mutants(source) if only in mutant.name]
    survived = []
    for mutant in found:
        tests = suite.tests_of(module, range(mutant.lines[0], mutant.lines[1] + 1))
        if not tests or survives(module, mutant.source, tests):
            survived.append(mutant.name)
            if not explanation(module, mutant.name):
                _say(f"{module}:{mutant.lines[0]}: survived {len(tests)} tests: {mutant.name}")
    _say(f"{module}: {len(found)} mutants, {len(survived)} survived")
    return Result(mutants=len(found), survived=survived)


def _examine_all(modules: list[str], results: Path, only: str) -> int:
    suite = Suite()
    known = read_results(results)
    for module in modules:
        known[module] = examine(module, suite, only=only)
        if not only:
            write_results(results, known)
    return int(any(not explanation(name, mutant) for name in modules for mutant in known[name].survived))


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # a program for developers


def _in_a_copy(arguments: list[str]) -> int:
    """Run this program again in a copy of the tree, which it may change."""
    with tempfile.TemporaryDirectory(prefix="batchkit-mutants-") as folder:
        for name in _COPIED:
            copied = shutil.copytree if Path(name).is_dir() else shutil.copy
            copied(name, f"{folder}/{name}")
        rest = Path(folder, "rest")  # what a test leaves that was killed goes with the copy
        rest.mkdir()
        environment: dict[str, Any] = {**os.environ, "PYTHONPATH": folder, "TMPDIR": str(rest)}
        command = [sys.executable, "-m", "tests.support.mutation", "--here", *arguments]
        return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def main() -> int:
    """Examine the modules of the command line; exit with 1 when a mutant survives without an explanation."""
    parser = argparse.ArgumentParser(description="change the code a little, and see whether a test notices")
    parser.add_argument("modules", nargs="*", default=DEFAULT, help="paths. Default: what must not err")
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir(), "batchkit-mutants.json"))
    parser.add_argument("--only", default="", help="only mutants whose name contains this; keeps no results")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        return _examine_all(options.modules, options.results, options.only)
    results = options.results.resolve()
    code = _in_a_copy([*sys.argv[1:], f"--results={results}"])
    if not options.only:
        write_account(read_results(results))
    return code


if __name__ == "__main__":
    sys.exit(main())
