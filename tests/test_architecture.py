"""The shape of the code base: which layer imports which, how long files are, what they may be called."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import unavailable

CHECKOUT = Path(__file__).resolve().parents[1]
MAX_LINES = 400
CLIENTS = {
    "airflow",
    "boto3",
    "botocore",
    "elasticsearch",
    "elastic_transport",
    "slack_sdk",
    "sqlalchemy",
    "psycopg",
}
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"}
# Built from parts, so that this file does not contain what it looks for.
MACHINE_PATH = re.compile(r"(?<![\w.-])/(?:" + "root|work" + r")/")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)


def _kept_files(*patterns: str) -> list[Path]:
    """Return the files that git tracks or would track."""
    listed = _run("git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns)
    if listed.returncode != 0:
        unavailable("the list of files needs git and a clone of the repository")
    return [CHECKOUT / name for name in listed.stdout.splitlines() if (CHECKOUT / name).is_file()]


def test_layers_import_inwards_only() -> None:
    """Every import-linter contract of pyproject.toml holds."""
    linter = str(Path(sys.executable).parent / "lint-imports")
    done = _run(linter, "--no-cache", "--no-logo")

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "package", ["airflow_batchkit", *(f"airflow_batchkit.{p}" for p in ("engine", "connectors", "cli"))]
)
def test_importing_it_loads_no_client_library(package: str) -> None:
    """A fresh interpreter that imports all modules of the package has neither Airflow nor a client in it."""
    program = f"""
import importlib, json, pkgutil, sys
package = importlib.import_module({package!r})
if {package.count(".")}:
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
    done = _run(sys.executable, "-c", program)

    assert done.returncode == 0, done.stderr
    assert CLIENTS & set(json.loads(done.stdout)) == set()


def test_files_stay_readable_in_one_sitting() -> None:
    """No Python file is longer than the limit."""
    lines = {path: len(path.read_text().splitlines()) for path in _kept_files("*.py")}

    assert {str(path): count for path, count in lines.items() if count > MAX_LINES} == {}


def test_names_say_what_lives_in_a_module() -> None:
    """No module or package has a name that fits anything."""
    parts = {path: {*path.relative_to(CHECKOUT).with_suffix("").parts} for path in _kept_files("*.py")}

    assert [str(path) for path, names in parts.items() if names & VAGUE_NAMES] == []


def test_every_test_says_what_it_checks() -> None:
    """Every test function has a docstring: the promise that it checks."""
    silent = [
        f"{path.relative_to(CHECKOUT)}:{node.lineno} {node.name}"
        for path in _kept_files("tests/test_*.py", "tests/**/test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]

    assert silent == []


def test_nothing_names_a_path_of_one_machine() -> None:
    """No kept file names a folder that only the machine of its author has."""
    named = [
        f"{path.relative_to(CHECKOUT)}:{number}"
        for path in _kept_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]

    assert named == []


def test_versions_come_from_whatever_index_is_configured() -> None:
    """The constraints pin versions and name no host."""
    pins = [
        line for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    ]

    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9._-]+==[^/@]+", pin)] == []
