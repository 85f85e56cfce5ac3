"""What flows between the stages."""

from __future__ import annotations

import pytest

from airflow_batchkit.engine.types import Record, on_one_line, record_size


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b'{"a": 1.0, "b":1e400}', b'{"a": 1.0, "b":1e400}'),
        (b'{\n  "a": 1.0,\r\n  "b": 12345678901234567890\n}', b'{"a":1.0,"b":12345678901234567890}'),
        (b'{"a":\n"\\ud800"}', b'{"a":"\\ud800"}'),
        (b"[" * 5000 + b"\n" + b"]" * 5000, b"[" * 5000 + b"]" * 5000),
    ],
    ids=["one line", "several", "half a character", "very deep"],
)
def test_a_body_comes_on_one_line_with_its_literals(body: bytes, line: bytes) -> None:
    """Only line breaks between the tokens go, also where no JSON library would read the body."""
    assert on_one_line(body) == line


def test_the_size_of_a_record_counts_its_id() -> None:
    """Batches are cut by it: a million tiny records are not nothing."""
    assert record_size(Record("ab", b"{}")) == 2 + 2 + 16
