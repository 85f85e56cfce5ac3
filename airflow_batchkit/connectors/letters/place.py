"""What a place for dead letters does besides keeping them: the seam behind which each kind of place is one.

Settled letters lie in *sets*, one per run. A set changes as a whole and in one write, which makes its
``revision`` one higher; what is read of it is read at one revision. Between a change's :meth:`prepare
<Change.prepare>` and its :meth:`apply <Change.apply>` readers find the set as it was, and whoever finds a
prepared change that nobody applied either applies it or discards it; both may be repeated.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import parse_qsl, urlencode

import msgspec

from airflow_batchkit.engine.dead_letters import DeadLetter, DeadLetterPlace
from airflow_batchkit.engine.exceptions import CannotResumeError, PermanentError, UsageError
from airflow_batchkit.engine.sink import OpenSink

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_batchkit.engine.checkpoint import Frontier
    from airflow_batchkit.engine.sink import BatchKey, Leg
    from airflow_batchkit.engine.source import OpenContext

_RECORD = b',"record":'
_decode = msgspec.json.Decoder(DeadLetter).decode


class Revision(msgspec.Struct, frozen=True):
    """Which state of a set: it changes whenever its letters do."""

    generation: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterSet:
    """The settled letters of one run.

    :param name: of the set in its place; opaque.
    :param url: where they lie, for people.
    :param job: whose letters they are.
    :param run: of which run.
    :param generation: names that run's output.
    :param token: the leg that settled them.
    :param records: how many letters there are.
    :param created_at: when they were settled, ISO 8601.
    :param revision: how often letters were taken out since then.
    :param replayed: the replay, or the purge, that took out the last ones.
    :param complete: False: the run failed, and goes on with them when it is cleared.
    """

    name: str
    url: str
    job: str
    run: str
    generation: str
    token: str
    records: int
    created_at: str = ""
    revision: int = 0
    replayed: str = ""
    complete: bool = True

    @property
    def state(self) -> Revision:
        """Which state of the set it is."""
        return Revision(self.generation, self.revision)


@dataclass(frozen=True, slots=True)
class Line:
    """One letter, and where it stands.

    :param position: in its set, as small JSON; reading goes on strictly after it.
    :param raw: its bytes, with a line feed at their end.
    :param letter: what they say.
    """

    position: Mapping[str, Any]
    raw: bytes
    letter: DeadLetter


class Hold(Protocol):
    """One leg's hold on a job's letters, so that no two replays are at work there at once."""

    def claim(self) -> None:
        """Take hold.

        :raises TargetHeldError: another replay is alive there.
        """
        ...

    def renew_if_due(self, *, for_seconds: float = 0.0) -> None:
        """Renew the lease when little is left of it.

        :param for_seconds: a planned pause that it has to last for.
        :raises SupersededError: another replay holds the letters now.
        """
        ...

    def confirm(self) -> None:
        """Make sure, at the place itself, that the hold is still ours, with a fresh lease.

        :raises SupersededError: another replay holds the letters now.
        """
        ...

    def release(self) -> None:
        """Let go, unless another has taken hold."""
        ...


class Change(Protocol):
    """One change of one set, in two steps: see the module."""

    def prepare(self, lines: Iterable[bytes]) -> None:
        """Keep what the set is to be; nothing of it is visible yet.

        :param lines: all letters that the set is to have.
        """
        ...

    def apply(self) -> None:
        """Make what was prepared the set, in one write, and remove what is old.

        :raises SupersededError: somebody else has changed the set meanwhile.
        """
        ...

    def discard(self) -> None:
        """Forget what was prepared."""
        ...


class FailedAgain(Protocol):
    """Where a replay keeps what fails again until its set changes; seen from one of the replay's legs."""

    def start(self) -> None:
        """Link this leg to the one before it; fails at once where the place cannot be written."""
        ...

    def put(self, key: BatchKey, letters: Sequence[DeadLetter]) -> None:
        """Keep one batch's letters; durable on return, safe to call again."""
        ...

    def lines(self, frontier: Frontier) -> Iterator[bytes]:
        """Give the letters that count, each as its line.

        :raises CannotResumeError: somebody removed what an earlier leg had kept.
        """
        ...

    def remove(self) -> None:
        """Remove all of it."""
        ...


class OpenLetters(Protocol):
    """The settled letters of a place, with its connections made. Every call may raise ``TransientError``."""

    @property
    def url(self) -> str:
        """The place, for people; no credentials."""
        ...

    def check(self) -> None:
        """Look whether the place can be read.

        :raises UsageError: it is not there, or not ours to read.
        """
        ...

    def sets(self, *, job: str | None = None, run: str | None = None) -> Iterator[LetterSet]:
        """Find the sets, ordered by their names.

        :param job: only this job's.
        :param run: only this run's.
        """
        ...

    def find(self, name: str) -> LetterSet | None:
        """Look at one set, None where there is none."""
        ...

    def name_of(self, job: str, run: str) -> str:
        """Name the set of one run, whether or not there is one."""
        ...

    def lines(self, found: LetterSet, after: Mapping[str, Any] | None = None) -> Iterator[Line]:
        """Read the letters of a set in their order, with bounded memory.

        :param after: the position of the last one that was read; None: from the beginning.
        :raises CannotResumeError: the set has changed since it was looked at.
        :raises PermanentError: it is damaged.
        """
        ...

    def hold(self, found: LetterSet, leg: Leg) -> Hold:
        """Make a leg's hold on the letters of the set's job; nothing is claimed yet."""
        ...

    def change(self, found: LetterSet, *, name: str) -> Change:
        """Make a change of a set.

        :param name: of the change; 8 hex digits.
        """
        ...

    def prepared(self, found: LetterSet) -> list[str]:
        """Return the names of the changes that were prepared and not ended."""
        ...

    def failed_again(self, leg: Leg) -> FailedAgain:
        """Make the place for what fails again.

        :param leg: of the replay.
        """
        ...

    def remove(self, found: LetterSet) -> None:
        """Remove a whole set: what names the letters first, so that no reader finds half of them."""
        ...

    def close(self) -> None:
        """Close sockets. Never raises."""
        ...


@runtime_checkable
class ReplayablePlace(DeadLetterPlace, Protocol):
    """A place for dead letters that can show what it keeps, besides keeping it."""

    def open_letters(self, context: OpenContext) -> OpenLetters:
        """Connect; nothing is asked of the place yet.

        :raises UsageError: there is no such connection.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Which run's output a target shows.

    :param url: of the target.
    :param job: whose output it is.
    :param run: of which run.
    :param generation: names the output.
    """

    url: str
    job: str
    run: str
    generation: str


class OpenExtension(OpenSink, Protocol):
    """A published output with its connections made, to be extended by one replay."""

    @property
    def replayed(self) -> str:
        """The partition of the replay that extended the output last; empty: none did."""
        ...


@runtime_checkable
class ExtendableSink(Protocol):
    """A sink whose published output a replay completes in one step, besides being a sink."""

    def shown(self, context: OpenContext) -> Shown | None:
        """Look which output is published, None where there is none."""
        ...

    def open_extension(self, context: OpenContext) -> OpenExtension:
        """Connect to the published output; writes nothing."""
        ...


def replayable(place: object, *, what: str) -> ReplayablePlace:
    """Return a place whose letters can be looked at and run again.

    :param what: whose place it is, for the message.
    :raises UsageError: it is none.
    """
    if isinstance(place, ReplayablePlace):
        return place
    raise UsageError(
        f"{what}: has no dead_letters that could be replayed; give DeadLetters(…), "
        "ElasticsearchDeadLetters(…) or SqlDeadLetters(…)"
    )


def typed_url(url: str, name: str = "", **parameters: str) -> str:
    """Write a place's URL so that the command line gets there.

    :param name: of the connection; one that the command line gave ends in what stood behind ``?``.
    :param parameters: what the place itself has to say behind ``?``.
    """
    asked = {**parameters, **dict(parse_qsl(name.rpartition("?")[2]))}
    return f"{url}?{urlencode(asked, safe=':/')}" if asked else url


def changed(url: str) -> CannotResumeError:
    """Make the error for a set that is not what it was when the replay began."""
    return CannotResumeError(
        f"the dead letters at {url} have changed since this replay began (another replay, a purge, or the "
        "run was done again): restart the replay"
    )


def decoded(raw: bytes, *, where: str) -> DeadLetter:
    """Read one letter.

    :param where: it stands, for the message.
    :raises PermanentError: it is none.
    """
    try:
        return letter_of(raw)
    except msgspec.DecodeError as error:
        # Not the decoder's text: it may quote the record.
        raise PermanentError(f"{where} is no dead letter; restore it from a backup") from error


def letter_of(raw: bytes) -> DeadLetter:
    """Read one letter, whatever its record holds.

    :raises msgspec.DecodeError: it is none.
    """
    try:
        return _decode(raw)
    except msgspec.DecodeError:
        # The decoder looks into the record, and knows no half surrogate pairs. A record is a letter's last
        # field; a cursor may have a field of that name as well, before which the letter is not whole.
        place = raw.find(_RECORD)
        while place >= 0:
            record = raw[place + len(_RECORD) : raw.rstrip().rfind(b"}")]
            with contextlib.suppress(msgspec.DecodeError, ValueError):
                letter = _decode(b"%bnull}" % raw[: place + len(_RECORD)])
                json.loads(record)
                return msgspec.structs.replace(letter, record=msgspec.Raw(record))
            place = raw.find(_RECORD, place + 1)
        raise


def short_hash(*texts: object) -> str:
    """Return 8 hex digits that stand for some texts."""
    return hashlib.sha256("\n".join(map(str, texts)).encode()).hexdigest()[:8]


def as_replay(leg: Leg) -> Leg:
    """Return a replay's leg with its run named unlike the runs of the job whose letters it replays."""
    return dataclasses.replace(leg, run=f"replay-{short_hash(leg.job)}-{leg.run}")
