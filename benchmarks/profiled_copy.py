"""``batchkit copy`` with a stopwatch around each stage.

Called as ``python -m benchmarks.profiled_copy copy SOURCE_URL SINK_URL``; its last line is JSON. The
stopwatches go around whole pages, not records: a few thousand calls, which cost next to nothing.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from typing import Any

from benchmarks.stopwatches import Stopwatches


def put_stopwatches(watches: Stopwatches) -> None:
    """Put them where the work is done."""
    from airflow_batchkit.connectors.elasticsearch import node, reader, rest, search
    from airflow_batchkit.connectors.object_storage import compression, publish, sink, staging
    from airflow_batchkit.engine import keeping, pipeline

    watches.put("engine, and the clients' imports", pipeline.Pipeline, "run")
    watches.put("ask Elasticsearch and wait", rest.Rest, "call")
    watches.put("receive pages", node, "whole_answer")
    watches.put("slice pages into records", search, "decode_page")
    watches.put("check the order", reader, "check_order")
    watches.put("make lines", sink, "format_lines")
    watches.put("put objects", staging.Staging, "put")
    watches.put("save checkpoints", keeping.CheckpointKeeper, "save")
    watches.put("publish", publish.Publisher, "publish")
    watches.put("sha256", hashlib, "sha256")
    make_compressor = compression.make_compressor

    class Compressor:
        def __init__(self, name: str | None) -> None:
            made = make_compressor(name)
            self.compress = watches.around("compress", made.compress)
            self.flush = watches.around("compress", made.flush)

    vars(sink)["make_compressor"] = Compressor


def main() -> None:
    """Copy, and write what each stage took."""
    from airflow_batchkit.cli import main as batchkit

    watches = Stopwatches()
    put_stopwatches(watches)
    began = {"cpu": time.process_time(), "wall": time.perf_counter()}
    try:
        batchkit()
    finally:
        stages: dict[str, Any] = {
            name: {"cpu": spent.cpu, "wall": spent.wall, "calls": spent.calls}
            for name, spent in watches.spent.items()
        }
        cpu = time.process_time()
        rest = cpu - began["cpu"] - sum(spent.cpu for spent in watches.spent.values())
        stages["start Python and the command"] = {"cpu": began["cpu"], "wall": 0.0, "calls": 1}
        stages["the loop, the readers, the rest"] = {"cpu": rest, "wall": 0.0, "calls": 1}
        sys.stdout.write("\n" + json.dumps({"cpu": cpu, "stages": stages}) + "\n")


if __name__ == "__main__":
    main()
