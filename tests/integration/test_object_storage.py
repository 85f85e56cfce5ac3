"""Output in a real folder and behind a real S3 API: one suite for both."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from airflow_batchkit.testing.contract import StagedOutputContract
from tests.support.object_storage import Place, make_place

from airflow_batchkit.connectors.object_storage import ObjectStorageSink

if TYPE_CHECKING:
    from airflow_batchkit.engine.source import OpenContext
    from airflow_batchkit.testing.contract.sink import MakeSink, Visible


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty place of each kind."""
    return make_place(request.param, request)


class TestContract(StagedOutputContract):
    @pytest.fixture
    @override
    def make_sink(self, place: Place) -> MakeSink:
        return lambda: ObjectStorageSink(url=place.url)

    @pytest.fixture
    @override
    def context(self, place: Place) -> OpenContext:
        return place.context

    @pytest.fixture
    @override
    def visible(self, place: Place) -> Visible:
        return lambda: place.ids() if "manifest.json" in place.names() else []
