"""What mutation testing found: results of its runs, why survivors do no harm, and the account in the docs.

``tests/surviving_mutants.toml`` has a table per module: the survivor's name, and why no test can or need
notice it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from tests.support.fault_report import write

EXPLANATIONS = Path("tests/surviving_mutants.toml")
BEGIN, END = "<!-- written by make mutants: begin -->", "<!-- written by make mutants: end -->"
_PACKAGE = "airflow_batchkit/"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one module's mutants.

    :param mutants: how many there are.
    :param survived: names of those that no test noticed.
    """

    mutants: int
    survived: list[str]


def read_results(path: Path) -> dict[str, Result]:
    """Return the results of earlier runs by module, none where there was no run."""
    if not path.exists():
        return {}
    return {module: Result(**result) for module, result in json.loads(path.read_text()).items()}


def write_results(path: Path, results: Mapping[str, Result]) -> None:
    """Keep the results for the next run."""
    path.write_text(json.dumps({module: asdict(result) for module, result in results.items()}, indent=1))


def explanation(module: str, mutant: str) -> str:
    """Return why a surviving mutant does no harm; empty where nobody said so."""
    return _explanations().get(module, {}).get(mutant, "")


def account(results: Mapping[str, Result]) -> str:
    """Return the table of all modules, and the list of what survived with the reasons."""
    lines = ["| module | mutants | killed | survived | of these explained |", "|---|---|---|---|---|"]
    reasons = []
    total = [0, 0, 0, 0]
    for module, result in sorted(results.items()):
        survived = len(result.survived)
        told = [(name, explanation(module, name)) for name in result.survived]
        explained = sum(1 for _, reason in told if reason)
        row = [result.mutants, result.mutants - survived, survived, explained]
        total = [before + more for before, more in zip(total, row, strict=True)]
        name = module.removeprefix(_PACKAGE)
        lines.append(f"| {name} | {' | '.join(f'{number:,}' for number in row)} |")
        reasons += [f"- {name}, `{mutant}`: {reason or 'not explained'}" for mutant, reason in told]
    lines.append(f"| all | {' | '.join(f'{number:,}' for number in total)} |")
    return "\n".join([*lines, "", "What survived, and why:", "", *reasons])


def write_account(results: Mapping[str, Result]) -> None:
    """Put the account between its markers in ``docs/reliability.md``."""
    write(account(results), begin=BEGIN, end=END)


@cache
def _explanations() -> dict[str, dict[str, str]]:
    return tomllib.loads(EXPLANATIONS.read_text()) if EXPLANATIONS.exists() else {}
