"""The export as an engineer would write it in an afternoon: scan, json, gzip, boto3.

Called as ``python -m benchmarks.scan_export INDEX BUCKET PREFIX``.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import sys

PAGE_RECORDS = 1_000
OBJECT_BYTES = 64 * 1024 * 1024  # before compression


def main() -> None:
    """Export an index."""
    import boto3
    from elasticsearch import Elasticsearch, helpers

    index, bucket, prefix = sys.argv[1:]
    client = Elasticsearch(os.environ["BENCH_ELASTICSEARCH_URL"], request_timeout=60)
    s3 = boto3.client("s3")
    hits = helpers.scan(client, index=index, size=PAGE_RECORDS)
    for part in itertools.count():
        buffer = io.BytesIO()
        written = 0
        with gzip.open(buffer, "wt") as lines:
            for hit in hits:
                line = json.dumps({"_id": hit["_id"], **hit["_source"]}) + "\n"
                lines.write(line)
                written += len(line)
                if written >= OBJECT_BYTES:
                    break
        if written == 0:
            return
        buffer.seek(0)
        s3.upload_fileobj(buffer, bucket, f"{prefix}/part-{part:05d}.ndjson.gz")


if __name__ == "__main__":
    main()
