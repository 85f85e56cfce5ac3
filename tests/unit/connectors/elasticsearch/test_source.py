"""Settings of the Elasticsearch source."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from airflow_batchkit.connectors.elasticsearch import ElasticsearchSource
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.source import Source


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"index": ""}, "index is empty"),
        ({"index": []}, "empty list"),
        ({"index": ["a", ""]}, "index is empty"),
        ({"index": ["a", "a"]}, "one index twice"),
        ({"index": "*"}, "every index of the cluster"),
        ({"index": "-a"}, "excludes something from nothing"),
        ({"index": "a,b"}, "as a list"),
        ({"index": "a", "sort": ["_score"]}, "sort by _score"),
        ({"index": "a", "fields": ["b"], "source_includes": ["c"]}, "instead of the document"),
        ({"index": "a", "query": {}}, "the query is empty"),
        ({"index": "a", "keep_alive": timedelta(minutes=11)}, "1 second to 10 minutes"),
        ({"index": "a", "keep_alive": timedelta(0)}, "1 second to 10 minutes"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    """Each refusal is one line that names the setting."""
    with pytest.raises(UsageError, match=message) as caught:
        ElasticsearchSource(**settings)
    assert "\n" not in str(caught.value)


def test_templates_are_checked_once_they_are_rendered() -> None:
    """A value may hold templates; what they render to is checked like any other setting."""
    source = ElasticsearchSource(index="orders-{{ ds }}", query={"range": {"at": {"gte": "{{ start }}"}}})
    assert {"index", "query"} <= set(source.__templated__)
    rendered = dataclasses.replace(
        source, index="orders-2026", query={"range": {"at": {"gte": "2026-01-01"}}}
    )
    assert rendered.names.expressions == ("orders-2026",)
    with pytest.raises(UsageError, match="gte is empty"):
        dataclasses.replace(source, index="orders-2026", query={"range": {"at": {"gte": ""}}})
    with pytest.raises(UsageError, match="index is empty"):
        dataclasses.replace(source, index="", query=None)


def test_a_source_is_a_value_that_can_be_shown() -> None:
    """It satisfies the protocol and serialises to JSON types."""
    source = ElasticsearchSource(index="orders", query={"term": {"a": 1}})
    assert isinstance(source, Source)
    assert source.serialize() == {
        "index": "orders",
        "query": {"term": {"a": 1}},
        "conn_id": "elasticsearch_default",
        "sort": [],
        "source_includes": [],
        "source_excludes": [],
        "fields": [],
        "runtime_mappings": None,
        "ignore_unavailable": False,
        "allow_no_indices": False,
        "date_field": None,
        "keep_alive": 300.0,
    }


def test_importing_the_source_imports_no_client() -> None:
    """A DAG file that names a source stays light: the client is imported when the source is opened."""
    program = (
        "import sys, airflow_batchkit.connectors.elasticsearch\n"
        "loaded = {'elasticsearch', 'elastic_transport', 'urllib3'} & set(sys.modules)\n"
        "sys.exit(f'imported {loaded}' if loaded else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
