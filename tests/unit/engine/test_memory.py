"""Freed memory goes back to the system."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from airflow_batchkit.engine import memory

PROBE = """
import re
from airflow_batchkit.engine.memory import settle_process

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024

settle_process()
bytearray(30_000_000)  # glibc would raise its threshold to this, and keep what is freed below it
before = resident()
buffers = [bytearray(b"x") * 1_000_000 for _ in range(100)]
buffers = buffers[-1:]
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; glibc is the allocator that needs it")
def test_freed_buffers_do_not_stay_with_the_process() -> None:
    """A hundred freed megabytes under one that is still used are no longer the process's."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=60, check=True
    )

    assert int(done.stdout) < 20


FREEZING = """
import gc
from airflow_batchkit.engine.memory import freeze_what_stays, settle_process

freeze_what_stays()
print(gc.get_freeze_count())
settle_process()
freeze_what_stays()
print(gc.get_freeze_count())
"""


def test_only_a_process_that_is_ours_is_frozen() -> None:
    """A pipeline in somebody else's process leaves the garbage collector as it is."""
    done = subprocess.run(
        [sys.executable, "-c", FREEZING], capture_output=True, text=True, timeout=60, check=True
    )

    before, after = map(int, done.stdout.split())
    assert before == 0
    assert after > 1_000


class Allocator:
    """Stands for the C library: notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def mallopt(self, option: int, value: int) -> int:
        """Be asked."""
        self.asked.append((option, value))
        return 1


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Let the test settle this very process, and unsettle it afterwards."""
    threshold = gc.get_threshold()
    monkeypatch.setattr(memory, "_ours", False)
    yield monkeypatch
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_a_settled_process_has_one_heap_and_keeps_no_large_buffer(settled: pytest.MonkeyPatch) -> None:
    """The C library is told the threshold and the number of heaps, by the numbers of its malloc.h."""
    allocator = Allocator()
    settled.setattr("ctypes.CDLL", lambda _: allocator)
    memory.settle_process()
    memory.freeze_what_stays()
    assert allocator.asked == [(-3, 256 * 1024), (-8, 1)]
    assert gc.get_threshold() == (5_000, 10, 10)
    assert gc.get_freeze_count() > 1_000


@pytest.mark.parametrize("trouble", [OSError, AttributeError, TypeError])
def test_another_c_library_is_left_alone(settled: pytest.MonkeyPatch, trouble: type[Exception]) -> None:
    """Where there is no ``mallopt``, or no C library to ask, the process is settled all the same."""

    def no_library(_: None) -> Allocator:
        raise trouble

    settled.setattr("ctypes.CDLL", no_library)
    memory.settle_process()
    assert gc.get_threshold() == (5_000, 10, 10)
