"""Saying a thing once, although Airflow calls back twice.

Airflow 3.3 calls back twice, about a second apart and from two processes of the dag-processor, when it loses
touch with a worker. The two meet at a marker file on the dag-processor's machine. Processes on different
machines do not meet there: between a worker and the dag-processor, the XCom of ``told.py`` helps.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeAlias

KEPT_SECONDS = 24 * 3600

State: TypeAlias = Literal["telling", "told"]


@contextmanager
def claimed(key: tuple[object, ...]) -> Iterator[bool]:
    """Claim the right to say something; yields False where another process on this machine has it already.

    When the body ends the thing counts as told; when it raises, the claim is given back, so that the second
    callback says what the first could not. A folder that cannot be used yields True: said twice is better
    than not at all.

    :param key: what is said, and about what.
    """
    try:
        marker = _marker(key)
        marker.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        yield False
        return
    except OSError:
        yield True
        return
    try:
        yield True
    except BaseException:
        marker.unlink(missing_ok=True)
        raise
    with suppress(OSError):
        marker.write_text("told")


def state_of(key: tuple[object, ...]) -> State | None:
    """Say how far the telling of something is on this machine; None where nobody claimed it.

    :param key: as for :func:`claimed`.
    """
    try:
        return "told" if _marker(key).read_text() else "telling"
    except OSError:
        return None


def _marker(key: tuple[object, ...]) -> Path:
    return _folder() / hashlib.sha256(repr(key).encode()).hexdigest()


def _folder() -> Path:
    """Return this user's folder of markers, without those of yesterday."""
    folder = Path(tempfile.gettempdir()) / f"airflow_batchkit-alerts-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to someone else")
    oldest = time.time() - KEPT_SECONDS
    for marker in folder.iterdir():
        with suppress(FileNotFoundError):
            if marker.stat().st_mtime < oldest:
                marker.unlink()
    return folder
