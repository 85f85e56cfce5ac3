"""What may happen to an output while it is verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from airflow_batchkit.connectors.object_storage.verify.output import Onlooker
from airflow_batchkit.engine.exceptions import StoppedError, TransientError, UsageError
from tests.support.object_storage import Place, make_place
from tests.support.published import Published, publish, ten

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_batchkit.connectors.object_storage.verify.declared import OutputHead


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty folder."""
    return make_place("file", request)


@pytest.fixture
def output(place: Place) -> Published:
    """Give an export of ten orders in three objects."""
    return publish(place, ten)


class Meanwhile(Onlooker):
    """Does something once the manifest has been read."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    @override
    def begin(self, head: OutputHead) -> None:
        self._act()


def test_output_that_is_replaced_meanwhile_is_not_called_damaged(output: Published) -> None:
    """A newer run that publishes in between removes what is being read: that is said, and may be repeated."""
    newer = Meanwhile(lambda: publish(output.place, ten, run="run-2"))

    with pytest.raises(TransientError, match="was replaced by run run-2 while it was verified"):
        output.verify(onlookers=[newer])
    assert output.verify().whole


def test_stop_ends_the_reading(output: Published) -> None:
    """A stop is asked between two pieces of an object, not only between objects."""
    with pytest.raises(StoppedError, match="enough"):
        output.verify(stop_asked=lambda: "enough")


def test_newer_format_is_wrong_usage(output: Published) -> None:
    """A manifest of a later version of this package is not called damaged."""
    output.edit_head("format_version", lambda _: 2)

    with pytest.raises(
        UsageError, match="format version 2, this version of airflow-batchkit knows 1: upgrade"
    ):
        output.verify()


def test_copied_output_is_whole_with_a_warning(output: Published) -> None:
    """An output that was copied elsewhere is whole there, and the report says where it was published."""
    copy = output.place.below("copy")
    for key in (*(part["key"] for part in output.parts), "manifest.json", "_SUCCESS"):
        copy.store().put(key, output.place.content(key))

    found = Published(copy).verify()

    assert found.whole
    assert list(found.warnings.to_dict()) == ["moved"]


def test_gap_in_the_parts_is_named(output: Published) -> None:
    """A part that somebody took out of the manifest is missed, although nothing else names it."""
    line = f'"{output.parts[1]["key"]}"'.encode()
    output.replace(
        "manifest.json",
        lambda content: b"".join(each for each in content.splitlines(keepends=True) if line not in each),
    )

    told = list(output.verify().problems.lines())

    assert any("lacks 1 parts of iterable before part-iterable-00003" in text for text in told)
    assert any("says 3 parts in all, its parts add up to 2" in text for text in told)


def test_empty_output_is_whole(place: Place) -> None:
    """An export of nothing is whole too."""
    found = publish(place, list).verify()

    assert (found.whole, found.records, found.objects) == (True, 0, 0)
