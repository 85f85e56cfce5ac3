"""The privileges that the docs name, each taken away in turn: refused in one line, or done without.

The keys have no privilege on the cluster. The server speaks https and asks who is there.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from airflow_batchkit.connectors.elasticsearch import ElasticsearchDeadLetters, ElasticsearchSource
from airflow_batchkit.connectors.object_storage import ObjectStorageSink
from airflow_batchkit.engine.dead_letters import DeadLetter, envelope
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.job import Job, RunIdentity
from airflow_batchkit.engine.listener import Listener
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, RateLimit, Timeouts
from airflow_batchkit.engine.sink import BatchKey, Leg
from airflow_batchkit.engine.source import OpenContext
from airflow_batchkit.engine.types import Record, Rejection
from airflow_batchkit.testing.doubles import MemoryStore
from tests.support.connections import ServerConnections
from tests.support.copying import Copying, last_line
from tests.support.elasticsearch_access import LEAST, Key, invalidate, new_key, trusted
from tests.support.elasticsearch_reading import (
    SMALL,
    make_index,
    opened,
    put_all,
    read_all,
    read_partition,
)
from tests.support.object_storage import leg, publication

if TYPE_CHECKING:
    from airflow_batchkit.engine.checkpoint import Checkpoint
    from airflow_batchkit.engine.report import Report
    from tests.support.elasticsearch import ElasticsearchServer

pytestmark = pytest.mark.elasticsearch

COUNT = 400


@dataclass(frozen=True)
class Orders:
    """An index of a test's own, and keys to it.

    :param server: holds it.
    :param index: its name.
    """

    server: ElasticsearchServer
    index: str

    def key(self, *privileges: str, name: str | None = None) -> Key:
        """Make a key with some privileges on the index, or on what else is named."""
        return new_key(self.server, {name or self.index: privileges})

    def read(self, key: Key, index: str | Sequence[str] | None = None) -> list[str]:
        """Read everything that a key shows and return the ids."""
        source = ElasticsearchSource(index=index or self.index)
        with opened(source, trusted(self.server, api_key=key.encoded)) as reading:
            return [record.id for record in read_all(reading, SMALL)]


@pytest.fixture
def orders(secured_elasticsearch_server: ElasticsearchServer) -> Iterator[Orders]:
    """Give an index of two shards."""
    made = Orders(secured_elasticsearch_server, f"secured-{secrets.token_hex(4)}")
    make_index(made.server, made.index, shards=2)
    put_all(made.server, made.index, {str(number): {"n": number} for number in range(COUNT)})
    yield made
    made.server.request("DELETE", f"/{made.index}")


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Give a function that returns what was warned of."""
    caplog.set_level(logging.WARNING, logger="airflow_batchkit")
    return lambda: [record.getMessage() for record in caplog.records]


EVERYTHING = sorted(str(number) for number in range(COUNT))


def test_the_four_privileges_suffice(orders: Orders, warnings: Callable[[], list[str]]) -> None:
    """The documented privileges are enough for everything, also for going on after a lost snapshot."""
    key = orders.key(*LEAST)
    assert sorted(orders.read(key)) == EVERYTHING
    assert warnings() == []

    def lose(number: int) -> None:
        if number == 6:
            orders.server.request("POST", f"/{orders.index}/_close")
            orders.server.request("POST", f"/{orders.index}/_open?wait_for_active_shards=all")

    with opened(
        ElasticsearchSource(index=orders.index), trusted(orders.server, api_key=key.encoded)
    ) as source:
        ids = [
            record.id
            for partition in range(2)
            for record in read_partition(source, partition, SMALL, on_page=lose).records
        ]
        assert source.state["snapshots"] == 2
    assert sorted(ids) == EVERYTHING


@pytest.mark.parametrize("missing", ["read", "view_index_metadata"])
def test_without_it_nothing_is_read(orders: Orders, tmp_path: Path, missing: str) -> None:
    """The engine and the command refuse in one line that names the privilege and the index."""
    key = orders.key(*(privilege for privilege in LEAST if privilege != missing))

    with pytest.raises(UsageError) as caught:
        orders.read(key)
    done = copy(orders, key, tmp_path)

    for line in (str(caught.value), last_line(done, exit_code=2)):
        assert "403" in line
        assert missing in line
        assert orders.index in line
    assert not (tmp_path / "out").exists()


def test_without_maintenance_each_shard_is_one_window(
    orders: Orders, warnings: Callable[[], list[str]]
) -> None:
    """What may not be refreshed is read whole, as one window a shard, said once."""
    key = orders.key("read", "view_index_metadata", "monitor")

    assert windows(orders, key) == {0: 1, 1: 1}

    assert sum("is read as one window" in line and "refresh" in line for line in warnings()) == 1


def test_without_monitor_each_shard_is_one_window(orders: Orders, warnings: Callable[[], list[str]]) -> None:
    """Where statistics may not be asked for, everything is still read, as one window a shard, said once."""
    key = orders.key("read", "view_index_metadata", "maintenance")

    assert windows(orders, key) == {0: 1, 1: 1}

    (said,) = [line for line in warnings() if "as one window" in line]
    assert "a sort that ends in a unique field avoids that" in said


def test_with_the_fewest_privileges_everything_is_read(orders: Orders) -> None:
    """Reading and looking at the settings is all that it takes."""
    assert sorted(orders.read(orders.key("read", "view_index_metadata"))) == EVERYTHING


def test_with_all_privileges_a_shard_is_many_windows(orders: Orders) -> None:
    """The fallbacks' one window a shard is a consequence of the missing privilege, not of the data."""
    assert min(windows(orders, orders.key(*LEAST)).values()) > 1


def windows(orders: Orders, key: Key) -> dict[int, int]:
    """Read every shard, insist that all is there, and return how many windows each took."""
    with opened(
        ElasticsearchSource(index=orders.index), trusted(orders.server, api_key=key.encoded)
    ) as source:
        readings = {partition: read_partition(source, partition, SMALL) for partition in range(2)}
    assert sorted(record.id for reading in readings.values() for record in reading.records) == EVERYTHING
    return {partition: len(reading.cursors) for partition, reading in readings.items()}


class Aliased:
    """An alias that shows the first ten documents only."""

    def __init__(self, orders: Orders) -> None:
        self.name = f"alias-{orders.index}"
        shown = {"range": {"n": {"lt": 10}}}
        added = {"index": orders.index, "alias": self.name, "filter": shown}
        orders.server.request("POST", "/_aliases", {"actions": [{"add": added}]})


def test_a_key_to_an_alias_alone_is_refused(orders: Orders, tmp_path: Path) -> None:
    """The line says to grant the concrete indices, which are what is read."""
    alias = Aliased(orders)
    key = orders.key(*LEAST, name=alias.name)

    with pytest.raises(UsageError) as caught:
        orders.read(key, alias.name)
    done = copy(orders, key, tmp_path, index=alias.name)

    for line in (str(caught.value), last_line(done, exit_code=2)):
        assert f"index {alias.name!r} stands for {orders.index}" in line
        assert "the connection needs its privileges on them, not on an alias alone" in line


def test_a_key_to_alias_and_index_reads_through_the_alias(orders: Orders) -> None:
    """With both granted, the alias shows what its filter lets through and nothing else."""
    alias = Aliased(orders)
    key = new_key(orders.server, {alias.name: LEAST, orders.index: LEAST})

    assert sorted(orders.read(key, alias.name)) == [str(number) for number in range(10)]


def test_a_key_to_a_pattern_sees_what_it_may(orders: Orders) -> None:
    """A pattern is what the key may see of it; a forbidden index that is named is refused."""
    forbidden = f"else-{orders.index}"
    make_index(orders.server, forbidden)
    put_all(orders.server, forbidden, {"hidden": {"n": 1}})
    key = orders.key(*LEAST, name=f"{orders.index[:12]}*")
    try:
        assert sorted(orders.read(key, f"*{orders.index.removeprefix('secured')}")) == EVERYTHING
        with pytest.raises(UsageError, match=f"403 .*{forbidden}"):
            orders.read(key, [orders.index, forbidden])
    finally:
        orders.server.request("DELETE", f"/{forbidden}")


def test_a_key_to_a_data_stream_is_enough(orders: Orders) -> None:
    """Privileges on a data stream hold for the indices behind it, also after a rollover."""
    stream = f"logs-{orders.index}"
    template = {
        "index_patterns": [stream],
        "data_stream": {},
        "template": {"settings": {"number_of_replicas": 0}},
    }
    orders.server.request("PUT", f"/_index_template/{stream}", template)
    for number in range(2):
        if number:
            orders.server.request("POST", f"/{stream}/_rollover")
        entry = {"@timestamp": f"2026-11-2{number}T00:00:00Z", "n": number}
        orders.server.request("POST", f"/{stream}/_create/{number}?refresh=true", entry)
    key = orders.key(*LEAST, name=stream)

    assert sorted(orders.read(key, stream)) == ["0", "1"]


class Revoker(Listener):
    """Takes a key back as soon as some progress is saved.

    :param orders: where the key is good.
    :param key: the key.
    """

    def __init__(self, orders: Orders, key: Key) -> None:
        self._orders = orders
        self._key = key
        self.saved = 0

    @override
    def on_saved(self, checkpoint: Checkpoint) -> None:
        if checkpoint.counts.read and not self.saved:
            self.saved = checkpoint.counts.read
            invalidate(self._orders.server, self._key)


@pytest.mark.fault("credentials", at="elasticsearch")
def test_a_key_that_is_taken_back_ends_the_run(orders: Orders, tmp_path: Path) -> None:
    """The run fails in one line, what was saved stands, and a run with a new key goes on from there."""
    more = 4_000
    put_all(orders.server, orders.index, {str(n): {"n": n, "p": "x" * 300} for n in range(COUNT, more)})
    store, key = MemoryStore(), orders.key(*LEAST)
    revoker = Revoker(orders, key)

    with pytest.raises(UsageError, match=r"401 .*check the connection's API key") as caught:
        run(orders, key, tmp_path, store=store, listener=revoker)
    assert "\n" not in str(caught.value)
    assert 0 < revoker.saved < more

    report = run(orders, orders.key(*LEAST), tmp_path, store=store)

    assert report.counts["read"] == more
    assert sorted(exported(tmp_path / "out"), key=int) == [str(number) for number in range(more)]


def run(
    orders: Orders, key: Key, folder: Path, *, store: MemoryStore, listener: Listener | None = None
) -> Report:
    """Run one leg of an export, slowly."""
    endpoint: dict[str, Any] = {
        "hosts": (orders.server.url,),
        "ca_certs": str(orders.server.ca_certs),
        "api_key": key.encoded,
    }
    return Pipeline(
        Job(
            name="revoked",
            source=ElasticsearchSource(index=orders.index),
            sink=ObjectStorageSink(url=f"file://{folder}/out"),
            batch=BatchPolicy(max_records=100),
            throttle=RateLimit(records_per_second=1_000),
        ),
        identity=RunIdentity(run="revoked"),
        store=store,
        key="revoked",
        connections=ServerConnections(elasticsearch=endpoint),
        listeners=[] if listener is None else [listener],
    ).run()


def exported(folder: Path) -> Iterator[str]:
    """Yield the ids in the parts that the manifest lists."""
    for part in json.loads((folder / "manifest.json").read_text())["parts"]:
        for line in gzip.decompress((folder / part["key"]).read_bytes()).splitlines():
            yield json.loads(line)["_id"]


def copy(orders: Orders, key: Key, folder: Path, index: str = "") -> Any:
    """Run ``batchkit copy`` with a key."""
    environment = {
        "BATCHKIT_ELASTICSEARCH_API_KEY": key.encoded,
        "BATCHKIT_ELASTICSEARCH_CA_CERTS": str(orders.server.ca_certs),
    }
    source = f"elasticsearch+{orders.server.url}/{index or orders.index}"
    return Copying(folder, environment)(source, f"file://{folder}/out")


LETTERS = ("create_index", "create_doc", "index", "delete", "read", "view_index_metadata", "maintenance")


def test_an_empty_index_takes_no_further_privilege(orders: Orders) -> None:
    """An index made beforehand gets its mapping with the documented privileges but ``create_index``."""
    index = f"{orders.index}-letters"
    orders.server.request("PUT", f"/{index}", {})
    key = orders.key(*LETTERS[1:], name=index)
    connections = ServerConnections(
        elasticsearch={**dataclasses.asdict(trusted(orders.server, api_key=key.encoded))}
    )
    context = OpenContext(connections=connections, timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC))
    try:
        with closing(ElasticsearchDeadLetters(index=index).open(context)) as place:
            place.start(leg("a"))
        mapping = orders.server.request("GET", f"/{index}/_mapping")
    finally:
        orders.server.request("DELETE", f"/{index}")
    assert mapping[index]["mappings"]["dynamic"] == "strict"


@pytest.mark.parametrize("missing", [None, *LETTERS[3:]])
def test_the_privileges_for_dead_letters_suffice(orders: Orders, missing: str | None) -> None:
    """The documented privileges are enough to keep letters and to settle them; without one, it is named."""
    index = f"{orders.index}-letters"
    key = orders.key(*(privilege for privilege in LETTERS if privilege != missing), name=index)
    connections = ServerConnections(
        elasticsearch={**dataclasses.asdict(trusted(orders.server, api_key=key.encoded))}
    )
    context = OpenContext(connections=connections, timeouts=Timeouts(), now=datetime(2026, 1, 1, tzinfo=UTC))

    def keep() -> int:
        with closing(ElasticsearchDeadLetters(index=index).open(context)) as place:
            first = leg("a")
            place.start(first)
            place.put(BatchKey(partition=0, number=1), [letter(first)])
            return int(place.settle(publication(0, dead_lettered=1))["count"])

    try:
        if missing is None:
            assert keep() == 1
        else:
            with pytest.raises(UsageError, match="403") as caught:
                keep()
            assert index in str(caught.value)
    finally:
        orders.server.request("DELETE", f"/{index}?ignore_unavailable=true")


def letter(first: Leg) -> DeadLetter:
    """Make a letter."""
    rejection = Rejection(
        record=Record("1", b"{}"), stage="sink", error_class="record", error_type="E", message="m"
    )
    return envelope(rejection, leg=first, key=BatchKey(partition=0, number=1))
