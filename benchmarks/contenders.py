"""Who takes part, and by which command."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import elasticdump
from benchmarks.orders import FEW
from benchmarks.servers import BUCKET

if TYPE_CHECKING:
    from benchmarks.servers import Servers

OURS, SCAN, ELASTICDUMP = "batchkit copy", "scan + json + gzip + boto3", "elasticdump"
DRAIN, SLICED_DRAIN, SINGLE_DRAIN = "bare drain", "drain that slices", "bare drain, one connection"
DRAINS = {DRAIN: (), SLICED_DRAIN: ("sliced",), SINGLE_DRAIN: ("in-turn",)}
ROUNDS = (OURS, SCAN, ELASTICDUMP, *(*DRAINS, OURS) * 2, *DRAINS)
"""Interleaved, so that what the machine does besides hits all of them; the slow ones once."""

CHECKOUT = Path(__file__).resolve().parent.parent
BATCHKIT = Path(sys.executable).with_name("batchkit")
_number = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line and all its variables.

    :param line: program and arguments.
    :param environment: all variables.
    """

    line: list[str]
    environment: Mapping[str, str]


class Contenders:
    """Makes the commands.

    :param servers: what they use.
    :param folder: for what they keep, and for Python's bytecode.
    :param program: of elasticdump, None where it is not there.
    :param version: the variables that make elasticdump know the server's version.
    """

    def __init__(
        self, servers: Servers, *, folder: Path, program: Path | None, version: Mapping[str, str]
    ) -> None:
        self._servers = servers
        self._folder = folder
        self._program = program
        self._version = version

    @property
    def rounds(self) -> tuple[str, ...]:
        """Who runs, in order."""
        return tuple(name for name in ROUNDS if name != ELASTICDUMP or self._program is not None)

    def command(self, name: str, index: str) -> Command:
        """Return the command by which a contender exports an index to a new place."""
        place = f"{index}-{next(_number)}"
        if name == OURS:
            return self._python(str(BATCHKIT), *self._copy(index))
        if name == SCAN:
            return self._python("-m", "benchmarks.scan_export", index, BUCKET, place)
        if name in DRAINS:
            return self._python("-m", "benchmarks.bare_drain", index, *DRAINS[name])
        if self._program is None:
            raise LookupError("elasticdump is not installed")
        servers = self._servers
        line = elasticdump.to_s3(
            self._program,
            servers.elasticsearch.url,
            index,
            f"s3://{BUCKET}/{place}.ndjson.gz",
            servers.s3.environment(),
        )
        return Command(line=line, environment={**os.environ, **self._version})

    def profiled(self, index: str) -> Command:
        """Return the command for the same copy with stopwatches in it."""
        return self._python("-m", "benchmarks.profiled_copy", *self._copy(index))

    def in_airflow(self, index: str) -> Command:
        """Return the command for the same export by the operator."""
        return self._python("-m", "benchmarks.in_airflow", index, BUCKET, f"{index}-{next(_number)}")

    def warm_up(self) -> list[Command]:
        """Return commands that compile the bytecode, on the index of a few orders."""
        return [self.command(name, FEW) for name in (OURS, SCAN, SLICED_DRAIN)]

    def _copy(self, index: str) -> tuple[str, ...]:
        source = self._servers.elasticsearch.url.replace("http://", "elasticsearch+http://")
        return ("copy", f"{source}/{index}", f"s3://{BUCKET}/{index}-{next(_number)}")

    def _python(self, *arguments: str) -> Command:
        """Run Python as an installed package has it: with bytecode that was compiled before."""
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            **self._servers.environment,
            "PYTHONPATH": str(CHECKOUT),
            "PYTHONPYCACHEPREFIX": str(self._folder / "bytecode"),
            "XDG_STATE_HOME": str(self._folder / "state"),
        }
        return Command(line=[sys.executable, *arguments], environment=environment)
