"""Gives freed memory back to the system, and looks for garbage only where there is some."""

from __future__ import annotations

import ctypes
import gc

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # from malloc.h
_THRESHOLD = 256 * 1024
_COLLECT_AFTER = (5_000, 10, 10)

_ours = False


def settle_process() -> None:
    """Set how this process uses memory: for a few large buffers that come and go.

    It holds for the whole process, so it is called where the process is ours: by the command line and in the
    task.
    """
    global _ours  # noqa: PLW0603  # a fact about the process, not about any object
    _ours = True
    gc.set_threshold(*_COLLECT_AFTER)
    _give_freed_buffers_back()


def freeze_what_stays() -> None:
    """Keep the garbage collector from looking through all that is imported, in a process that is settled.

    Called when everything is open. Records make no cycles, yet each page of them is enough new objects to
    make the collector look for some: a twentieth of all processor time.
    """
    if _ours:
        gc.freeze()


def _give_freed_buffers_back() -> None:
    """Tell glibc to keep one heap, and to give freed buffers back to the system at once.

    Buffers, here, are those of 256 KiB and more. Left alone, glibc raises this threshold up to the largest
    buffer that was ever freed, and has a heap per thread: they fill with holes between pages and batches
    (docs/adr/0011). Elsewhere than on glibc it does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _THRESHOLD)
    mallopt(_M_ARENA_MAX, 1)
