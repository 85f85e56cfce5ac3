"""The records of the benchmark: made-up orders of about 340 bytes, in an index of two shards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchEndpoint

INDEX = "orders"
FEW = "orders-few"
SHARDS = 2
SETTINGS: dict[str, Any] = {
    "settings": {"number_of_shards": SHARDS, "number_of_replicas": 0, "refresh_interval": -1},
    "mappings": {
        "dynamic": False,
        "properties": {
            "created_at": {"type": "date"},
            "customer": {"properties": {"id": {"type": "keyword"}}},
            "status": {"type": "keyword"},
            "total": {"type": "double"},
        },
    },
}

_AT_ONCE = 10_000
_STATUSES = ("paid", "packed", "shipped", "returned")
_CITIES = ("Zürich", "Lyon", "Porto", "Malmö", "Kraków", "Turin", "Cork", "Gent")
_WORDS = 4_000
_WORDS_IN_A_NOTE = 13


def orders(count: int) -> Iterator[str]:
    """Make orders as JSON: the same ones at each call."""
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(_WORDS)]
    for number in range(count):
        note = " ".join(chance.choices(words, k=_WORDS_IN_A_NOTE))
        yield (
            f'{{"order":"A-{number:09d}","created_at":"2026-{number % 12 + 1:02d}-{number % 28 + 1:02d}'
            f'T{number % 24:02d}:{number % 60:02d}:07.{number % 1000:03d}Z",'
            f'"status":"{_STATUSES[number % 4]}",'
            f'"customer":{{"id":"C-{number * 7919 % 99_991:05d}","city":"{_CITIES[number % 8]}"}},'
            f'"lines":[{{"sku":"{number * 31 % 10_007:05d}","quantity":{number % 5 + 1},'
            f'"price":{number % 9973}.95}}],'
            f'"total":{number % 49_999}.5,"currency":"EUR","gift":false,"note":"{note}"}}'
        )


def load(server: ElasticsearchEndpoint, index: str, count: int) -> None:
    """Make an index that holds so many orders, refreshed once, with the segments that indexing left."""
    server.request("PUT", f"/{index}", SETTINGS)
    lines: list[str] = []
    for number, order in enumerate(orders(count), 1):
        lines.append(f'{{"index":{{"_id":"{number}"}}}}\n{order}\n')
        if number % _AT_ONCE == 0 or number == count:
            answer = server.request(
                "POST", f"/{index}/_bulk?filter_path=errors", "".join(lines).encode(), timeout=120
            )
            if answer["errors"]:
                raise RuntimeError(f"some of the orders up to {number:,} were not indexed")
            lines.clear()
    server.request("POST", f"/{index}/_refresh", timeout=120)
