"""Runs every test that shows a fault, and writes what it counted into ``docs/reliability.md``.

``python -m tests.support.fault_report``; arguments go to pytest. ``make faults`` sets
``BATCHKIT_FAULTS=full`` for it: the sweeps are then wider than in the run of all tests.
"""

from __future__ import annotations

import platform
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from tests.support.fault_table import FAULT, FAULTS, FULL, NAMES, PLACES

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
# Many of the marked tests wait more than they work.
_AT_ONCE = ("--numprocesses", "3", "--dist", "loadfile", "--no-loadscope-reorder")
BEGIN, END = "<!-- written by make faults: begin -->", "<!-- written by make faults: end -->"


class Tally:
    """A pytest plugin that counts the passed cases of each fault at each place."""

    def __init__(self) -> None:
        self.passed: Counter[tuple[str, str]] = Counter()
        self.failed: list[str] = []
        self.skipped: list[str] = []
        self.tests: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._cases = 0

    @property
    def cases(self) -> int:
        """How many cases passed; one that shows two faults counts once."""
        return self._cases

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one case."""
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.skipped:
            self.skipped.append(report.nodeid)
        elif report.when == "call":
            self._cases += 1
            for name, shown in report.user_properties:
                if name == FAULT:
                    fault, at = cast("tuple[str, str]", shown)
                    self.passed[fault, at] += 1
                    self.tests[fault][report.nodeid.partition("[")[0]] = None


def table(tally: Tally, *, seconds: float) -> str:
    """Return the text between the markers of the page."""
    when = datetime.now(UTC).date().isoformat()
    width = "in wide sweeps" if FULL else "as narrow as CI runs them"
    summary = (
        f"Run on {when} {width}, with Python {platform.python_version()}: {tally.cases:,} cases passed, "
        f"{len(tally.failed):,} failed, {len(tally.skipped):,} were skipped, in {seconds / 60:,.0f} minutes. "
        "A number is how many cases showed the fault there; a case may show several."
    )
    lines = [
        summary,
        "",
        "| what happens | what holds | " + " | ".join(NAMES[place] for place in PLACES) + " |",
        "|---|---|" + "---|" * len(PLACES),
    ]
    for name, fault in FAULTS.items():
        cells = [str(tally.passed[name, place] or "") for place in PLACES]
        lines.append(f"| {fault.title} | {fault.promise} | " + " | ".join(cells) + " |")
    lines += ["", "Shown by:", ""]
    for name, fault in FAULTS.items():
        lines.append(f"- **{fault.title}**: {', '.join(_names(tally.tests[name]))}")
    return "\n".join(lines)


def _names(nodes: dict[str, None]) -> list[str]:
    """Name each test once, with its file."""
    by_file: defaultdict[str, list[str]] = defaultdict(list)
    for node in nodes:
        file, _, test = node.partition("::")
        by_file[file].append(f"`{test}`")
    return [f"{', '.join(tests)} in `{file}`" for file, tests in sorted(by_file.items())]


def write(text: str, page: Path = PAGE, *, begin: str = BEGIN, end: str = END) -> None:
    """Put the text between two markers of the page."""
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def main(arguments: Sequence[str]) -> int:
    """Run the marked tests; write the page when all of them passed."""
    tally = Tally()
    began = time.monotonic()
    code = pytest.main(["-m", FAULT, *_AT_ONCE, *arguments], plugins=[tally])
    if code == pytest.ExitCode.OK:
        write(table(tally, seconds=time.monotonic() - began))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
