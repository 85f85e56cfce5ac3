"""Whether an export's lines may be compared with the documents byte for byte."""

from __future__ import annotations

from typing import Any, cast

import pytest

from airflow_batchkit.connectors.elasticsearch.live import LiveIndex
from airflow_batchkit.connectors.elasticsearch.projection import Projection
from airflow_batchkit.connectors.elasticsearch.source import _short


@pytest.mark.parametrize(
    ("transform", "projection", "whole"),
    [
        ("none", Projection(), True),
        ("0123456789ab", Projection(), False),
        ("none", Projection(source_excludes=["secret"]), False),
        ("none", Projection(fields=["n"]), False),
    ],
)
def test_only_untouched_documents_are_whole(transform: str, projection: Projection, whole: bool) -> None:
    """A transform, or some of the fields only, make lines that are not the documents."""
    index = LiveIndex(cast("Any", None), ["orders"], {"match_all": {}})

    fingerprints = {"transform": transform, "fields": _short(projection.body)}

    assert index.is_copied_whole(fingerprints) is whole
