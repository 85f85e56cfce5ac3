"""What a search asks of each document."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_batchkit.connectors.elasticsearch.projection import Projection


@pytest.mark.parametrize(
    ("settings", "body"),
    [
        ({}, {}),
        ({"source_includes": ["a", "b.*"]}, {"_source": {"includes": ["a", "b.*"]}}),
        ({"source_excludes": ["a"]}, {"_source": {"excludes": ["a"]}}),
        ({"fields": ["a"]}, {"_source": False, "fields": ["a"]}),
        ({"runtime_mappings": {"a": {"type": "long"}}}, {"runtime_mappings": {"a": {"type": "long"}}}),
    ],
)
def test_only_what_is_asked_for_is_in_the_search(settings: dict[str, Any], body: dict[str, Any]) -> None:
    """Whole documents are asked for without any filter: filtering makes the server parse each of them."""
    assert Projection(**settings).body == body
