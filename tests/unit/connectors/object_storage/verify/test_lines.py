"""Lines are told apart from what only looks like them, wherever the pieces are cut."""

from __future__ import annotations

from collections import deque

import msgspec
import pytest

from airflow_batchkit.connectors.object_storage.verify import lines as module
from airflow_batchkit.connectors.object_storage.verify.lines import BadLineError, Line, LineReader

decode = msgspec.json.Decoder(Line).decode


def read(content: bytes, step: int, wanted: tuple[int, ...] = ()) -> tuple[LineReader[Line], list[Line]]:
    """Read a content that comes in steps."""
    reader = LineReader(decode, wanted=wanted)
    lines = [line for at in range(0, len(content), step) for line in reader.feed(content[at : at + step])]
    reader.finish()
    return reader, lines


@pytest.mark.parametrize("step", [1, 5, 10_000])
def test_lines_come_out_as_they_went_in(step: int) -> None:
    """Each line once, with its identity; the wanted ones are kept byte for byte."""
    content = b'{"_id":"a","x":1e400}\n{"_id":"\xc3\xa9","_index":"i"}\n{"_id":"c","_source":{"_id":1}}\n'

    reader, lines = read(content, step, wanted=(2, 3))

    assert [line.id for line in lines] == ["a", "é", "c"]
    assert (reader.count, reader.bad) == (3, 0)
    assert reader.kept == [(2, content.splitlines()[1]), (3, content.splitlines()[2])]
    assert lines[1].identity == "_id '\\xe9' of _index 'i'"


BAD = {
    b"": "truncated",
    b"[]": "Expected `object`, got `array`",
    b'{"a":1}': "missing required field `_id`",
    b'{"_id":1}': "Expected `str`, got `int`",
    b'{"_id":"a"}{"_id":"b"}': "trailing characters",
    b'{"_id":"a","x":NaN}': "invalid character",
    b'{"_id":"a","x":"\xff"}': "it is not UTF-8",
    b'{"_id":"a","x":' + b"[" * 5000 + b"]" * 5000 + b"}": "it is nested too deeply",
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_line_is_counted_and_the_others_read(bad: bytes) -> None:
    """One bad line costs no other, and the reason holds nothing of what is in it."""
    reader, lines = read(b'{"_id":"1"}\n%b\n{"_id":"3"}\n' % bad, 10_000)

    assert [line.id for line in lines] == ["1", "3"]
    assert (reader.count, reader.bad) == (3, 1)
    assert reader.first_bad.startswith("line 2: ")
    assert BAD[bad] in reader.first_bad


def test_half_a_surrogate_pair_is_no_damage() -> None:
    """Elasticsearch keeps the escape of half a character, so the export has it too."""
    reader, lines = read(b'{"_id":"a","s":"\\ud800","t":"\\\\ud800"}\n', 10_000)

    assert [line.id for line in lines] == ["a"]
    assert reader.bad == 0


def test_last_line_needs_its_end() -> None:
    """A last line without a line feed was cut off."""
    reader, _ = read(b'{"_id":"1"}\n{"_id":"2"}', 10_000)

    assert (reader.count, reader.first_bad) == (2, "line 2: it has no line feed at its end")


def test_endless_line_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that does not end is not held in memory for ever."""
    monkeypatch.setattr(module, "_MAX_LINE_BYTES", 2**20)
    reader = LineReader(decode)

    pieces = iter([b"x" * 2**16] * 30)

    with pytest.raises(BadLineError, match="line 1 has more than 1 MiB"):
        deque(map(reader.feed, pieces))
