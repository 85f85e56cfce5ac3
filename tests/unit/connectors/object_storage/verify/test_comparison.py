"""The sample is spread evenly, always the same, and compared byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.connectors.object_storage.verify.comparison import Comparison
from airflow_batchkit.engine.types import Record
from tests.support.object_storage import make_place
from tests.support.published import Published, orders, publish

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Index:
    """Stands for an index with these documents."""

    def __init__(self, bodies: Mapping[str, bytes], *, whole: bool = True) -> None:
        self._bodies = bodies
        self._whole = whole
        self.asked: list[str] = []

    def count(self) -> int:
        """Count them."""
        return len(self._bodies)

    def documents(self, ids: Sequence[str]) -> list[Record]:
        """Fetch them."""
        self.asked += ids
        return [Record(id=name, body=self._bodies[name], version=7) for name in ids if name in self._bodies]

    def is_copied_whole(self, fingerprints: Mapping[str, str]) -> bool:
        """Say what the test says."""
        assert "source" in fingerprints
        return self._whole


@pytest.fixture
def output(request: pytest.FixtureRequest) -> Published:
    """Give an export of a hundred orders in ten objects."""
    return publish(make_place("file", request), lambda: orders(100), batch=10)


def bodies(output: Published) -> dict[str, bytes]:
    """Return the documents as they were exported."""
    lines = [line.encode().partition(b",") for line in output.place.lines()]
    return {head[8:-1].decode(): b"{" + rest for head, _, rest in lines}


def compare(output: Published, index: Index, *, sample: int = 100, seed: int = 0) -> dict[str, Any]:
    """Compare an output with an index."""
    comparison = Comparison(lambda _: index, sample=sample, seed=seed)
    found = output.verify(onlookers=[comparison])
    return comparison.finish(found.changed).to_dict()


def test_sample_is_even_and_repeatable(output: Published) -> None:
    """Ten of a hundred lines are one of each ten; a seed gives the same again, another gives others."""
    samples = []
    for seed in (1, 1, 2):
        index = Index(bodies(output))
        assert compare(output, index, sample=10, seed=seed)["sampled"] == 10
        samples.append(sorted(int(name) for name in index.asked))

    assert [number // 10 for number in samples[0]] == list(range(10))
    assert samples[0] == samples[1] != samples[2]


def test_differences_are_named_by_id(output: Published) -> None:
    """A changed literal and a missing document are told by their ids, and the number of documents too."""
    live = bodies(output)
    live["3"] = live["3"].replace(b"1.5", b"1.50")
    del live["4"]

    differences = compare(output, Index(live))["differences"]

    assert {kind: tally["examples"] for kind, tally in differences.items()} == {
        "changed": ["_id '3' differs in the live index"],
        "gone": ["_id '4' is not in the live index"],
        "count": ["the export read 100 documents, 99 match now (-1)"],
    }


def test_transformed_documents_are_looked_for_by_id_only(output: Published) -> None:
    """Where lines are not the whole documents, other bytes are no difference."""
    live = dict.fromkeys(bodies(output), b"{}")

    compared = compare(output, Index(live, whole=False))

    assert (compared["by_bytes"], compared["differences"]) == (False, {})


def test_unreadable_line_is_not_compared(output: Published) -> None:
    """A damaged line in the sample is the verification's matter."""
    index = Index(bodies(output))
    output.rewrite(output.first, lambda lines: [b"damaged\n", *lines[1:]])

    assert compare(output, index)["sampled"] == 99
