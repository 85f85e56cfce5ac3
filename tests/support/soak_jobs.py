"""Random jobs for the soak: what they copy, how, and what has to come of it, all from one seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, TypeAlias

from airflow_batchkit.engine.exceptions import RecordError

SourceKind: TypeAlias = Literal["sqlite", "postgres", "elasticsearch"]
TargetKind: TypeAlias = Literal["file", "s3"]

CHANGED_EVERY = 5
_TEXTS = (
    "plain",
    "Zürich, 東京, 🙂",
    'a "quoted" \\ text',
    "two\nlines\r\nand a tab\t",
    "\u2028 \x7f \x1f </script>",
    "1e400 -0.0 12345678901234567890",
    "",
)


@dataclass(frozen=True, kw_only=True)
class SoakJob:
    """One job: two of the same number and seed are the same.

    :param number: which one.
    :param source: where records come from.
    :param target: where they go.
    :param runs: records of each of its runs, one after the other at the same target.
    :param salt: makes the records of this job unlike those of others.
    :param shards: of the index.
    :param readers: partitions read at the same time.
    :param max_records: of a batch.
    :param max_bytes: of a batch.
    :param rate: records a second; None: no limit.
    :param compression: of the output.
    :param transforms: whether :func:`transform` is applied, which gives some records up.
    :param beside: whether the checkpoint lies beside the output.
    :param changing: whether every fifth document changes all the while.
    :param by_command: whether ``batchkit copy`` does it.
    """

    number: int
    source: SourceKind
    target: TargetKind
    runs: tuple[int, ...]
    salt: int
    shards: int
    readers: int
    max_records: int | None
    max_bytes: int
    rate: float | None
    compression: str | None
    transforms: bool
    beside: bool
    changing: bool
    by_command: bool

    @property
    def name(self) -> str:
        """The job's name: of its table or index, its folder, its target."""
        return f"soak_{self.number}"

    def text(self, run: int, number: int, state: int = 0) -> str:
        """Return the text of a record.

        :param run: position of the run.
        :param number: of the record.
        :param state: how often it was changed before.
        """
        random = Random(f"{self.salt}/{run}/{number}/{state}")
        text = "".join(random.choices(_TEXTS, k=random.randint(0, 4)))
        return text + "x" * random.choice([0, 0, 10, 300, 300, 5_000])

    def body(self, run: int, number: int, state: int = 0) -> bytes:
        """Return a record as its source holds it."""
        record: dict[str, Any] = {"number": number, "text": self.text(run, number, state)}
        if self.changing:
            record["state"] = state
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()

    def changes(self, number: int) -> bool:
        """Whether a record changes while it is read."""
        return self.changing and number % CHANGED_EVERY == 0

    def expected(self, run: int) -> Expected:
        """Return what has to come of a run."""
        expected = Expected({}, {}, 0)
        for number in range(self.runs[run]):
            body = self.body(run, number)
            fate = fate_of(number) if self.transforms else "kept"
            if fate == "poison":
                expected.letters[str(number)] = body
            elif fate == "filtered":
                expected.filtered += 1
            elif fate == "spread":
                expected.lines |= {id_: _line(id_, body) for id_ in (f"{number}-1", f"{number}-2")}
            else:
                expected.lines[str(number)] = _line(str(number), body)
        return expected


@dataclass
class Expected:
    """What has to come of a run.

    :param lines: each line of the output, by the record's id.
    :param letters: each record that is given up, by its id.
    :param filtered: how many the transform leaves out.
    """

    lines: dict[str, bytes]
    letters: dict[str, bytes]
    filtered: int


def fate_of(number: int) -> Literal["kept", "poison", "filtered", "spread"]:
    """Say what the transform makes of a record."""
    if number % 13 == 4:
        return "poison"
    if number % 7 == 3:
        return "filtered"
    return "spread" if number % 17 == 5 else "kept"


def transform(document: dict[str, Any]) -> Mapping[str, Any] | list[Mapping[str, Any]] | None:
    """Give up some records, filter some, and make two of some: the user's function."""
    fate = fate_of(document["number"])
    if fate == "poison":
        raise RecordError("poison")
    if fate == "filtered":
        return None
    return [document, document] if fate == "spread" else document


def draw(seed: int, number: int, *, sources: tuple[SourceKind, ...], by_command: bool = True) -> SoakJob:
    """Draw a job.

    :param seed: of the soak.
    :param number: which job of it.
    :param sources: those that are there.
    :param by_command: whether it may be one for the command line, which takes longer to start.
    """
    random = Random(f"job {seed}/{number}")
    command = by_command and random.random() < 0.1
    source = random.choice(sources)
    changing = source == "elasticsearch" and not command and random.random() < 0.4
    most = 500 if command else 250
    count = random.choice([0, 1, 7, most, *(random.randint(2, most) for _ in range(8))])
    more = [random.randint(0, most)] if not command and random.random() < 0.25 else []
    return SoakJob(
        number=number,
        source=source,
        target=random.choice(["file", "s3"]),
        runs=(count, *more),
        salt=random.getrandbits(32),
        shards=random.randint(1, 3),
        readers=random.randint(1, 4),
        max_records=random.choice([None, 1 + count // 6, 5 + count // 20, 40]),
        max_bytes=random.choice([2_000, 20_000, 16_000_000]),
        rate=250.0 if command else random.choice([None, None, None, 400.0]),
        compression=random.choice(["gzip", "gzip", "zstd", None]),
        transforms=not changing and not command and random.random() < 0.6,
        beside=not command and random.random() < 0.4,
        changing=changing,
        by_command=command,
    )


def _line(id_: str, body: bytes) -> bytes:
    return b'{"_id":"%b",%b' % (id_.encode(), body[1:])
