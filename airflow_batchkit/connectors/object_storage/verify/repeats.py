"""Finds what comes twice among any number of hashes, in bounded memory.

Hashes go into buckets of a temporary file (8 bytes each), and the buckets are looked through one after the
other. The file has no name: it is gone with the process, however that ends.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile, gettempdir

from airflow_batchkit.engine.exceptions import PermanentError

BYTES_PER_HASH = 8
_BUCKETS = 1024
_IN_MEMORY = 128 * 1024
_AT_ONCE = 100_000


class Repeats:
    """Takes 64-bit hashes and tells which of them came more than once. Safe to add to from several threads.

    :param in_memory: hashes kept in memory before they are written to the file.
    :param at_once: hashes of a bucket that are looked at in one go; a fuller bucket takes several.
    """

    def __init__(self, *, in_memory: int = _IN_MEMORY, at_once: int = _AT_ONCE) -> None:
        self._in_memory = in_memory
        self._at_once = at_once
        self._lock = threading.Lock()
        self._buckets = [array("q") for _ in range(_BUCKETS)]
        self._held = 0
        with _disk_errors():
            self._file = TemporaryFile()  # noqa: SIM115  # closed by close()
        self._runs: list[int] = []
        self._end = 0

    def add(self, hashes: Sequence[int]) -> None:
        """Take hashes.

        :raises PermanentError: the temporary folder is full.
        """
        with self._lock:
            appends = [bucket.append for bucket in self._buckets]
            for value in hashes:
                appends[value % _BUCKETS](value)
            self._held += len(hashes)
            if self._held >= self._in_memory:
                self._write_run()

    def repeated(self) -> Iterator[tuple[int, int]]:
        """Give each hash that came more than once, and how often it came."""
        for number in range(_BUCKETS):
            bucket = self._bucket(number)
            parts = -(-len(bucket) // self._at_once)
            for part in range(parts):
                some = bucket.tolist() if parts == 1 else [h for h in bucket if h // _BUCKETS % parts == part]
                if len(set(some)) < len(some):
                    yield from ((value, times) for value, times in Counter(some).items() if times > 1)

    def close(self) -> None:
        """Give the disk back."""
        with suppress(OSError):  # what could not be written is tried once more, and is needed no longer
            self._file.close()

    def _write_run(self) -> None:
        """Write what is held as one run: where each bucket of it ends, then the buckets."""
        ends = array("q")
        end = self._end + BYTES_PER_HASH * (_BUCKETS + 1)
        ends.append(end)
        for bucket in self._buckets:
            end += BYTES_PER_HASH * len(bucket)
            ends.append(end)
        with _disk_errors():
            self._file.seek(self._end)
            self._file.write(ends)
            for bucket in self._buckets:
                self._file.write(bucket)
            self._file.flush()
        self._runs.append(self._end)
        self._end, self._held = end, 0
        self._buckets = [array("q") for _ in range(_BUCKETS)]

    def _bucket(self, number: int) -> array[int]:
        bucket = array("q", self._buckets[number])
        descriptor = self._file.fileno()
        for run in self._runs:
            bounds = array("q", os.pread(descriptor, 2 * BYTES_PER_HASH, run + BYTES_PER_HASH * number))
            bucket.frombytes(os.pread(descriptor, bounds[1] - bounds[0], bounds[0]))
        return bucket


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PermanentError(
            f"the temporary folder {gettempdir()} cannot be written to ({error.strerror}): looking for ids "
            f"that come twice takes {BYTES_PER_HASH} bytes per record there; set TMPDIR to a larger one, or "
            "leave the ids out"
        ) from error
