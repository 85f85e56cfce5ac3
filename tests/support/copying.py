"""``batchkit copy`` in a process of its own, and what it says in the end."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

COMMAND = Path(sys.executable).with_name("batchkit")


@dataclass
class Copying:
    """Runs ``batchkit copy`` for one test.

    :param folder: the test's own.
    :param environment: leads to the S3 API.
    """

    folder: Path
    environment: dict[str, str]

    def __call__(self, source: str, target: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [COMMAND, "copy", source, target, "--no-progress", *options],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self.folder,
            env={
                **os.environ,
                **self.environment,
                "XDG_STATE_HOME": str(self.folder / "state"),
            },
        )


def last_line(done: subprocess.CompletedProcess[str], *, exit_code: int) -> str:
    """Check that the end is one clear line, and return it."""
    assert done.returncode == exit_code, done.stderr[-2000:]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("batchkit"), done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return last
