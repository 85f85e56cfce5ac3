"""The main job on real servers: Elasticsearch to S3 in Airflow, killed in the middle."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import pytest

from tests.support.elasticsearch_reading import make_index, put_all
from tests.support.exports import Exports, published
from tests.support.object_storage import Place, S3Connections

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.s3 import S3Server
    from tests.support.standalone import AirflowStandalone

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.elasticsearch,
    pytest.mark.s3,
    pytest.mark.timeout(600),
]

DOCUMENTS = {str(number): {"n": number, "text": f"order {number} · ü"} for number in range(1, 601)}


@pytest.mark.fault("sigkill", at="airflow")
def test_killed_export_of_an_index_is_whole(
    standalone: AirflowStandalone,
    elasticsearch_server: ElasticsearchEndpoint,
    s3_server: S3Server,
    bucket: str,
    tmp_path: Path,
) -> None:
    """Killed in the middle, the export goes on in the next try and publishes each document once."""
    index = f"exporting-{secrets.token_hex(4)}"
    make_index(elasticsearch_server, index, shards=2)
    put_all(elasticsearch_server, index, DOCUMENTS)
    connection = {"conn_type": "elasticsearch", "host": elasticsearch_server.url}
    standalone.put_connection("exporting_elasticsearch", json.dumps(connection))
    standalone.put_connection("exporting_s3", s3_server.airflow_connection())
    try:
        export = Exports(standalone, tmp_path).start(
            "exporting_documents", index=index, bucket=bucket, hold="before sink.put 6"
        )
        process = export.held(saved=True)
        saved = export.saved
        process.kill()
        export.run.wait("success", seconds=200)
    finally:
        elasticsearch_server.request("DELETE", f"/{index}")

    place = Place(
        url=export.report["published"]["location"],
        connections=S3Connections(
            endpoint_url=s3_server.endpoint_url,
            access_key=s3_server.access_key,
            secret_key=s3_server.secret_key,
        ),
    )
    assert export.try_states == ["failed", "success"]
    assert export.report["legs"] == 2
    assert export.resumed_after >= saved > 0
    lines = published(place)
    assert len(lines) == len(DOCUMENTS)
    for line in lines:
        line.pop("_version", None)  # is told once the export spans two snapshots, one of each try
    assert {line.pop("_id"): line for line in lines} == DOCUMENTS
