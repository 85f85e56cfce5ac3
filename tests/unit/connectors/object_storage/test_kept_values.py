"""Small values beside an output: by compare-and-set, under names that cannot leave their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.object_storage.kept_values import ObjectValues
from tests.support.object_storage import Place, make_place

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty place of each kind."""
    return make_place(request.param, request)


@pytest.fixture
def values(place: Place) -> Iterator[ObjectValues]:
    """Give the values there."""
    values = ObjectValues(place.store())
    yield values
    values.close()


def test_a_write_needs_the_version_that_is_there(values: ObjectValues) -> None:
    """None where there must be nothing; a wrong version writes nothing and says so by None."""
    first = values.write("a", b"1", version=None)
    assert first is not None
    assert values.write("a", b"2", version=None) is None
    second = values.write("a", b"2", version=first)
    assert second is not None
    assert second != first
    assert values.write("a", b"3", version=first) is None
    found = values.read("a")
    assert found is not None
    assert (found.content, found.version) == (b"2", second)


def test_names_stay_in_their_place(place: Place, values: ObjectValues) -> None:
    """Whatever a name holds, it is one object beside the owner record, and comes back as it was."""
    for name in ("run", "../../up", "a b", "日次"):
        values.write(name, b"x", version=None)
    assert values.names() == sorted(["run", "../../up", "a b", "日次"])
    assert all(name.startswith("_batchkit/checkpoint-") for name in place.names())
    values.delete("run")
    assert values.read("run") is None
    values.delete("run")
