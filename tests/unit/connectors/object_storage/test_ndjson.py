"""Lines keep every byte of a record that is not white space between tokens."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from airflow_batchkit.connectors.object_storage.ndjson import RESERVED, format_lines
from airflow_batchkit.engine.types import Record


def lines(*records: Record) -> list[bytes]:
    """Format records and take the text apart again."""
    text = format_lines(records)
    assert text.endswith(b"\n")
    return text.removesuffix(b"\n").split(b"\n")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b'{"a":1}', b'{"_id":"x","a":1}'),
        (b"{}", b'{"_id":"x"}'),
        (b"{ \n}", b'{"_id":"x"}'),
        (b' \r\n {"a": 1} ', b'{"_id":"x","a": 1}'),
        (b'{ "a": 1 }', b'{"_id":"x","a": 1 }'),
        (b'{\r\n  "a": [1,\n 2]\n}', b'{"_id":"x","a":[1,2]}'),
        (b'{"n":12345678901234567890123,"f":1.0,"e":1e400}', None),
        (b'{"z":-0.0,"E":1E+5,"a":"\\u00e9\\/\\ud83d\\ude00","b":{"_id":2}}', None),
        (b'{"_id":7}', b'{"_id":"x","_source":{"_id":7}}'),
        (b'{"a":1,"_source":{}}', b'{"_id":"x","_source":{"a":1,"_source":{}}}'),
        (b'{"\\u005fid":7}', b'{"_id":"x","_source":{"\\u005fid":7}}'),
        (b'{"_\\u0069d":7}', b'{"_id":"x","_source":{"_\\u0069d":7}}'),
        (b'{"a":"\\"_id\\""}', None),
        (b'{"a":"half \\ud83d"}', None),
        (b'{\n"a":"half \\ud83d"}', b'{"_id":"x","a":"half \\ud83d"}'),
    ],
)
@pytest.mark.parametrize("company", [[], [Record(id="y", body=b'{"b":2}')]], ids=["alone", "in company"])
def test_line_of_a_body(body: bytes, line: bytes | None, company: list[Record]) -> None:
    """Usual bodies are kept byte by byte; unusual ones become one line of the same document."""
    expected = line or b'{"_id":"x",' + body[1:]
    assert lines(Record(id="x", body=body), *company)[0] == expected


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_body_with_a_name_of_ours_is_wrapped(name: str) -> None:
    """Whatever name a line may carry: a record's own field of that name never takes its place."""
    body = b'{"%b": null}' % name.encode()
    assert json.loads(lines(Record(id="x", body=body))[0]) == {"_id": "x", "_source": {name: None}}


def test_identity_is_written_as_far_as_it_is_set() -> None:
    """Routing, index and version are in the line exactly where the record has them."""
    record = Record(id="x", body=b'{"a":1}', routing="r", index="orders", version=3)
    plain = Record(id="y", body=b"{}")
    assert lines(record, plain) == [
        b'{"_id":"x","_routing":"r","_index":"orders","_version":3,"a":1}',
        b'{"_id":"y"}',
    ]


@pytest.mark.parametrize(
    "name", ['q"uote', "back\\slash", "line\nfeed\r", "../x", "é€😀\u2028", "x" * 512, ""]
)
def test_odd_ids_stay_in_their_line(name: str) -> None:
    """An id is a JSON string: what is in it can neither end the line nor change the document."""
    first, second = lines(Record(id=name, body=b'{"a":1}'), Record(id="y", body=b'{"a":2}'))
    assert json.loads(first) == {"_id": name, "a": 1}
    assert json.loads(second) == {"_id": "y", "a": 2}


def test_slices_of_a_page_are_kept() -> None:
    """Bodies that are slices of an answer, as Elasticsearch's source makes them, come out byte by byte."""
    bodies = msgspec.json.decode(b'[{"a": 1.0}, {"b":[ ]} ]', type=list[msgspec.Raw])
    records = [Record(id=str(number), body=body) for number, body in enumerate(bodies)]
    assert format_lines(records) == b'{"_id":"0","a": 1.0}\n{"_id":"1","b":[ ]}\n'


def test_no_records_no_lines() -> None:
    """An empty page writes nothing."""
    assert format_lines([]) == b""


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.text() | st.sampled_from(sorted(RESERVED))
documents = st.dictionaries(names, values, max_size=5)


def spelled(document: dict[str, Any], *, indent: int | None, ascii_only: bool) -> bytes:
    """Write a document in one of the ways that people write JSON."""
    return json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"])),
            documents,
            st.sampled_from([None, 0, 2]),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_line_means_what_the_body_meant(
    drawn: list[tuple[str, dict[str, Any], int | None, bool]],
) -> None:
    """For any documents, however they are spelled: one line each, and it reads back as id plus document."""
    text = format_lines(
        [
            Record(id=name, body=spelled(document, indent=indent, ascii_only=ascii_only))
            for name, document, indent, ascii_only in drawn
        ]
    )
    assert text.count(b"\n") == len(drawn)
    for line, (name, document, _, _) in zip(text.splitlines(), drawn, strict=True):
        found = json.loads(line.decode("utf-8", "surrogatepass"))
        if RESERVED.isdisjoint(document):
            assert found == {"_id": name, **document}
        else:
            assert found == {"_id": name, "_source": document}
