"""Sample data for docker-compose.yml: a bucket, and orders of the last seven days; the same ids each time."""  # noqa: INP001  # a script, no package

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_batchkit.cli.demo.orders import make_orders

ORDERS = int(os.environ.get("SEED_ORDERS", "100000"))
INDEX = "orders"
BUCKET = "lake"
DAYS = timedelta(days=7)
_COLUMNS = ("id", "customer", "amount", "currency")


def main() -> None:
    """Make everything that the example DAGs read and write; repeatable."""
    file = Path(_connection("example_orders")["host"])
    if not file.exists():
        make_orders(file, count=ORDERS)
    _make_bucket(_connection("aws_default"))
    _index_orders(_connection("elasticsearch_default"), file)
    print(f"seeded: bucket {BUCKET}, {ORDERS:,} orders in index {INDEX} and in {file}")  # noqa: T201  # a script


def _connection(conn_id: str) -> dict[str, Any]:
    """Read the connection that the DAGs use, too."""
    found: dict[str, Any] = json.loads(os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"])
    return found


def _make_bucket(connection: dict[str, Any]) -> None:
    import boto3

    s3 = boto3.client(
        "s3",
        aws_access_key_id=connection["login"],
        aws_secret_access_key=connection["password"],
        **connection["extra"],
    )
    with closing(s3):
        if BUCKET not in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}:
            s3.create_bucket(Bucket=BUCKET)


def _index_orders(connection: dict[str, Any], file: Path) -> None:
    from elasticsearch import Elasticsearch
    from elasticsearch.helpers import bulk

    url = f"{connection['schema']}://{connection['host']}:{connection['port']}"
    with Elasticsearch(url, request_timeout=60) as client:
        if not client.indices.exists(index=INDEX):
            client.indices.create(
                index=INDEX,
                settings={"number_of_shards": 2, "number_of_replicas": 0},
                mappings={
                    "properties": {
                        "id": {"type": "long"},
                        "customer": {"type": "keyword"},
                        "amount": {"type": "keyword"},
                        "currency": {"type": "keyword"},
                        "created_at": {"type": "date"},
                    }
                },
            )
        bulk(client, _documents(file), chunk_size=5_000)
        client.indices.refresh(index=INDEX)


def _documents(file: Path) -> Iterator[dict[str, Any]]:
    until = datetime.now(tz=UTC).replace(microsecond=0)
    with closing(sqlite3.connect(file)) as database:
        (count,) = database.execute("SELECT count(*) FROM orders").fetchone()
        for row in database.execute(f"SELECT {', '.join(_COLUMNS)} FROM orders ORDER BY id"):  # noqa: S608  # ours
            order = dict(zip(_COLUMNS, row, strict=True))
            created_at = until - DAYS * (1 - order["id"] / count)
            yield {"_index": INDEX, "_id": order["id"], **order, "created_at": created_at.isoformat()}


if __name__ == "__main__":
    main()
