"""Freed memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
