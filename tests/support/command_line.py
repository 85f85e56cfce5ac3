"""``batchkit`` as a person runs it: a process of its own, with its own state folder."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BATCHKIT = (sys.executable, "-c", "from airflow_batchkit.cli import main; main()")


def environment_of(state: Path) -> dict[str, str]:
    """Return the variables of a process that keeps its state in a folder of the test's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHKIT_", "AWS_"))}
    return {**kept, "XDG_STATE_HOME": str(state)}


def run(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*BATCHKIT, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def start(*arguments: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start the command; its standard error is read line by line."""
    return subprocess.Popen(
        [*BATCHKIT, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(process: subprocess.Popen[str], word: str) -> str:
    """Read the process's standard error until a line holds the word; return what was read."""
    assert process.stderr is not None
    read = ""
    for line in process.stderr:
        read += line
        if word in line:
            return read
    pytest.fail(f"{word!r} was never said:\n{read}")


def exported(folder: Path) -> list[dict[str, Any]]:
    """Return the records that the manifest names, in its order."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    return [
        json.loads(line)
        for part in manifest["parts"]
        for line in gzip.decompress((folder / part["key"]).read_bytes()).splitlines()
    ]
