"""Other versions of the Elasticsearch client, each in a folder that comes first on the path of a process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.elasticsearch_distribution import CHECKOUT
from tests.support.processes import unavailable

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Client:
    """A version of the client and of the transport below it.

    :param elasticsearch: version of the client.
    :param transport: version of ``elastic-transport``.
    """

    elasticsearch: str
    transport: str

    def folder(self) -> Path:
        """Return the folder that holds it, and only it; it is fetched the first time."""
        folder = CHECKOUT / ".cache" / "clients" / f"elasticsearch-{self.elasticsearch}-{self.transport}"
        if not folder.exists():
            self._install(folder)
        return folder

    def _install(self, folder: Path) -> None:
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        wanted = [f"elasticsearch=={self.elasticsearch}", f"elastic-transport=={self.transport}"]
        install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target"]
        done = subprocess.run(
            [*install, unfinished, *wanted], capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode != 0:
            said = done.stderr.strip().partition("\n")[0] or "it said nothing"
            unavailable(f"uv could not install {' and '.join(wanted)} ({said}): is the package index there?")
        unfinished.rename(folder)
