"""Published outputs, in files and behind a real S3 API, with one thing wrong: just that is named."""

from __future__ import annotations

import gzip
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.engine.exceptions import UsageError
from tests.support.object_storage import Place, make_place
from tests.support.published import Published, orders, publish, ten

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.s3


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest) -> Place:
    """Give an empty place of each kind."""
    return make_place(request.param, request)


@pytest.fixture
def output(place: Place) -> Published:
    """Give an export of ten orders in three objects."""
    return publish(place, ten)


def flip(content: bytes) -> bytes:
    """Change one bit in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


TAMPERED: dict[str, tuple[Callable[[Published], None], set[str], str]] = {
    "a bit flipped": (
        lambda output: output.replace(output.first, flip),
        {"bytes", "compression"},
        "not the content that the manifest names",
    ),
    "cut off": (
        lambda output: output.replace(output.first, lambda content: content[:-9]),
        {"bytes", "compression"},
        "ends in the middle of its gzip stream",
    ),
    "longer": (
        lambda output: output.replace(output.first, lambda content: content + b"more"),
        {"bytes", "compression"},
        "goes on behind the end of its gzip stream",
    ),
    "deleted": (lambda output: output.remove(output.first), {"missing"}, "is not there"),
    "replaced": (
        lambda output: output.replace(output.first, lambda _: output.place.content(output.parts[1]["key"])),
        {"bytes", "repeated"},
        "is there 2 times",
    ),
    "a line dropped": (
        lambda output: output.rewrite(output.first, lambda lines: lines[1:]),
        {"records"},
        "has 3 lines, the manifest says 4",
    ),
    "an id doubled": (
        lambda output: output.rewrite(output.first, lambda lines: [lines[0], *lines[:3]]),
        {"repeated"},
        "_id '0' is there 2 times, in part-iterable-00001",
    ),
    "no JSON": (
        lambda output: output.rewrite(output.first, lambda lines: [lines[0][:-3] + b"\n", *lines[1:]]),
        {"lines"},
        "1 lines that are no records, line 1: ",
    ),
    "no id": (
        lambda output: output.rewrite(output.first, lambda lines: [b'{"a":1}\n', *lines[1:]]),
        {"lines"},
        "missing required field `_id`",
    ),
    "two objects on one line": (
        lambda output: output.rewrite(output.first, lambda lines: [lines[0][:-1] + lines[1], *lines[1:]]),
        {"lines"},
        "line 1: ",
    ),
    "no line feed at the end": (
        lambda output: output.rewrite(output.first, lambda lines: [*lines[:-1], lines[-1][:-1]]),
        {"lines"},
        "line 4: it has no line feed at its end",
    ),
    "count of a part edited": (
        lambda output: output.edit_part(output.first, {"records": 5}),
        {"records", "manifest"},
        "has 4 lines, the manifest says 5",
    ),
    "counts of the run edited": (
        lambda output: output.edit_head("counts", lambda counts: {**counts, "read": 11}),
        {"counts"},
        "read 11 records, but transformed 10 + filtered 0",
    ),
    "a key that leads out": (
        lambda output: output.edit_part(output.first, {"key": f"../out/{output.first}"}),
        {"manifest"},
        "which is no name of this output's, and is not looked at",
    ),
    "a key below another prefix": (
        lambda output: output.edit_part(output.first, {"key": f"other/{output.first}"}),
        {"manifest"},
        "which is no name of this output's, and is not looked at",
    ),
    "a part named twice": (
        lambda output: output.edit_part(output.parts[1]["key"], output.parts[0]),
        {"manifest"},
        "twice, or out of order",
    ),
    "manifest cut off": (
        lambda output: output.replace("manifest.json", lambda content: content[:-30]),
        {"manifest"},
        "the manifest is ",
    ),
    "manifest of somebody else": (
        lambda output: output.replace("manifest.json", lambda _: b"{}\n"),
        {"manifest"},
        "the manifest is damaged, or not one of this package",
    ),
    "no _SUCCESS": (lambda output: output.remove("_SUCCESS"), {"success"}, "_SUCCESS is not there"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_tampered_with_is_named(output: Published, what: str) -> None:
    """Each kind of damage makes the output not whole, and is told in one line with what to do next."""
    tamper, kinds, text = TAMPERED[what]
    assert output.verify().whole

    tamper(output)
    found = output.verify()

    assert not found.whole
    told = list(found.problems.lines())
    assert kinds <= set(found.problems.to_dict()) <= {*kinds, "manifest"}, told
    assert any(text in line and "\n" not in line for line in told), told


def test_untouched_export_is_whole(place: Place) -> None:
    """More than 100,000 documents in several objects, none damaged, none twice."""
    output = publish(place, lambda: orders(120_000), batch=25_000)

    found = output.verify()

    assert list(found.problems.lines()) == list(found.warnings.lines()) == []
    assert (found.records, found.objects, found.ids) == (120_000, 5, True)


@pytest.mark.parametrize("compression", ["zstd", None])
def test_other_compressions(place: Place, compression: str | None) -> None:
    """Outputs in zstd and without compression are verified, and their damage is seen, as in gzip."""
    output = publish(place, ten, compression=compression)
    assert output.verify().whole

    output.replace(output.first, lambda content: content[:-5])

    assert "bytes" in output.problems()


def test_what_else_lies_there_is_a_warning(output: Published) -> None:
    """Parts of another generation, staged and foreign objects are counted with an example, and do no harm."""
    store = output.place.store()
    other = re.sub("-[0-9a-f]{8}[.]", "-0a0a0a0a.", output.first)
    for key in (other, "_batchkit/run-0/token/part-00000-0000001.ndjson.gz", "notes.txt", "deeper/notes.txt"):
        store.put(key, b"x")

    found = output.verify()

    assert found.whole
    warnings = found.warnings.to_dict()
    assert {kind: tally["examples"][0][:28] for kind, tally in warnings.items()} == {
        "staged": "1 objects lie below _batchki",
        "foreign": "2 other objects lie there, s",
        "older": "1 parts of another generatio",
    }


def test_dead_letters_are_counted_and_read(place: Place) -> None:
    """A missing or changed object of dead letters is a problem of the output that they belong to."""
    from airflow_batchkit.connectors.object_storage.verify.letters import verify_letters

    def documents() -> list[Any]:
        return [{**order, "refuse": number % 5 == 0} for number, order in enumerate(orders(20))]

    letters = place.below("letters")
    output = publish(place.below("orders"), documents, letters=letters.url)

    def verified() -> tuple[int | None, list[str]]:
        found = output.verify()
        verify_letters(letters.store(), found, seconds=60, stop_asked=lambda: None)
        return found.letters, list(found.problems.lines())

    assert verified() == (4, [])
    key = next(name for name in letters.names() if name.endswith(".ndjson"))
    Published(letters).replace(key, lambda content: content.replace(b"marked", b"Marked"))
    assert "not the content that the manifest names" in verified()[1][0]
    Published(letters).remove(key)
    assert "is not there" in verified()[1][0]
    Published(letters).remove(next(name for name in letters.names() if name.endswith("letters.json")))
    assert "letters.json is not at" in verified()[1][0]
    with pytest.raises(UsageError, match="is not where the manifest says that they are"):
        verify_letters(place.below("let").store(), output.verify(), seconds=60, stop_asked=lambda: None)


def test_no_output_says_what_lies_there(place: Place) -> None:
    """Without a manifest it is wrong usage, and the message helps to find the right prefix."""
    store = place.store()
    with pytest.raises(UsageError, match=r"there is no manifest\.json at .*: nothing lies there"):
        Published(place).verify()
    store.put("_batchkit/run/token/leg.json", b"{}")
    with pytest.raises(UsageError, match="only staged objects: a run is at work there"):
        Published(place).verify()
    store.put("ds=1/manifest.json", b"{}")
    with pytest.raises(UsageError, match="but '_batchkit/', 'ds=1/': name the prefix of one output"):
        Published(place).verify()


def test_changed_documents_may_come_in_several_versions(output: Published) -> None:
    """Where the export spans several snapshots, an id may come again, in another version."""

    def again(version: bytes) -> Callable[[list[bytes]], list[bytes]]:
        changed = b'{"_id":"0","_version":%b,"city":"Bern"}\n' % version
        return lambda lines: [*lines[:-1], changed]

    output.rewrite(output.parts[1]["key"], again(b"2"))
    assert output.problems() == {"repeated": 1}

    head = b'{\n  "snapshots": 2,\n'
    output.replace("manifest.json", lambda content: content.replace(b"{\n", head, 1))
    found = output.verify()
    assert found.whole
    assert found.changed == 1

    output.rewrite(output.parts[2]["key"], again(b"2"))
    told = list(output.verify().problems.lines())
    assert len(told) == 1
    assert told[0].startswith("_id '0' in version 2 is there 2 times, in part-iterable-0000")


def test_one_id_under_two_routings_is_two_documents(output: Published) -> None:
    """Elasticsearch keeps an id once per routing value, so the export may too."""

    def routed(lines: list[bytes]) -> list[bytes]:
        return [b'{"_id":"0","_routing":"%b"}\n' % name for name in (b"a", b"b")] + lines[:2]

    output.rewrite(output.parts[1]["key"], routed)

    assert output.problems() == {}


def test_no_ids_leaves_them_out(output: Published) -> None:
    """Without ids a doubled one is not noticed, and the report says that nobody looked."""
    output.rewrite(output.first, lambda lines: [lines[0], *lines[:3]])

    found = output.verify(ids=False)

    assert found.whole
    assert "ids that come twice were not looked for" in list(found.lines())


def test_problems_beyond_twenty_are_counted(place: Place) -> None:
    """Of each kind twenty are told, and how many more there are."""
    output = publish(place, lambda: orders(30), batch=1)
    for part in output.parts:
        output.remove(part["key"])

    lines = list(output.verify().problems.lines())

    assert len(lines) == 21
    assert lines[-1] == "and 10 more of the same kind (missing)"


def test_json_report_is_complete(output: Published) -> None:
    """The machine's report is JSON and holds every count."""
    report = json.loads(json.dumps(output.verify().to_dict()))

    assert report["whole"] is True
    assert (report["records"], report["objects"], report["counts"]["read"]) == (10, 3, 10)
    assert report["bytes"] == sum(len(output.place.content(part["key"])) for part in output.parts)
    assert gzip.decompress(output.place.content(output.first)).count(b"\n") == 4
