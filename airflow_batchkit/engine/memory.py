"""Keeps the process from holding on to buffers that it has freed."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # from malloc.h
_THRESHOLD = 256 * 1024


def give_freed_buffers_back() -> None:
    """Tell glibc to keep one heap, and to give freed buffers back to the system at once.

    Buffers, here, are those of 256 KiB and more. Left alone, glibc raises this threshold up to the largest
    buffer that was ever freed, and has a heap per thread: they fill with holes between pages and batches
    (docs/adr/0011). It holds for the whole process, so it is called where the process is ours: by the command
    line and in the task. Elsewhere than on glibc it does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _THRESHOLD)
    mallopt(_M_ARENA_MAX, 1)
