"""A real server that stops to answer, under a process that looks healthy to everybody else."""

from __future__ import annotations

import dataclasses
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.elasticsearch.source import ElasticsearchSource
from airflow_batchkit.engine.exceptions import StoppedError
from airflow_batchkit.engine.policies import BatchRetry, Timeouts
from tests.support.elasticsearch_reading import OneServer, make_index, put_all
from tests.support.fault_proxy import Fault, fault_proxy
from tests.support.legs import World

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchEndpoint

pytestmark = pytest.mark.elasticsearch


@pytest.mark.fault("hung", at="elasticsearch")
def test_a_server_that_hangs_is_named_and_left(
    elasticsearch_server: ElasticsearchEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """The leg ends after Timeouts.no_progress, saying in which call it hung; the next reads everything."""
    index = f"hangs-{secrets.token_hex(4)}"
    make_index(elasticsearch_server, index)
    put_all(elasticsearch_server, index, {f"id-{number}": {"n": number} for number in range(60)})

    def plan(path: str, number: int) -> Fault:
        return "hang" if path == "/_search" and number >= 2 else None

    world = World(
        source=None,
        timeouts=Timeouts(no_progress=timedelta(seconds=4), read=timedelta(seconds=30)),
        batch_retry=BatchRetry(max_tries=1),
    )
    job = world.job(source=ElasticsearchSource(index=index))
    with fault_proxy(elasticsearch_server.url, plan) as (url, proxy):
        with pytest.raises(
            StoppedError,
            match=r"no cursor moved for 4 s \(Timeouts.no_progress\): batchkit-read-\S+ in node.py:\d+",
        ):
            world.run(job, connections=OneServer(url))
        assert proxy.hanging.is_set()
    assert "-- batchkit-read-" in caplog.text
    assert "urllib3" in caplog.text

    patient = dataclasses.replace(job, timeouts=Timeouts())
    world.run(patient, connections=OneServer(elasticsearch_server.url))
    assert sorted(world.ids) == sorted(f"id-{number}" for number in range(60))
    elasticsearch_server.request("DELETE", f"/{index}")
