"""The transform stage: documents in, documents out, each failure kept to its own record.

A transform is called with the decoded document, and with the :class:`Record` too when it takes two arguments.
It returns

- a document: it replaces the record's body;
- ``None``: the record is *filtered*, on purpose;
- several documents (a list, a generator): the record becomes several, whose ids are ``<id>-1``, ``<id>-2``, …

What it raises sends that one record to the dead letters, with its stack trace. A record that its source could
not read goes there too, and never comes to the transform.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import CellType, CodeType
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_batchkit.engine.dead_letters import ReplayedRecord
from airflow_batchkit.engine.exceptions import BatchkitError, RecordError
from airflow_batchkit.engine.types import Record, Rejection, UnreadableRecord
from airflow_batchkit.engine.values import plain, qualified_name

if TYPE_CHECKING:
    from airflow_batchkit.engine.job import Transform

_BETWEEN_SECONDS = 0.5

_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode = msgspec.json.Decoder(dict).decode


@dataclass(slots=True)
class TransformResult:
    """What became of some records.

    :param produced: for the sink.
    :param transformed: records that became one or more others.
    :param filtered: records for which the transform returned nothing.
    :param rejected: records whose transform failed.
    :param unreadable: records that their source could not read.
    """

    produced: list[Record] = field(default_factory=list)
    transformed: int = 0
    filtered: int = 0
    rejected: list[Rejection] = field(default_factory=list)
    unreadable: list[Rejection] = field(default_factory=list)


class TransformStage:
    """Calls the user's function for each record.

    :param transform: the user's function; None hands the records on untouched.
    """

    def __init__(self, transform: Transform | None) -> None:
        self._transform = transform
        self._call = _with_two_arguments(transform)

    def __call__(
        self, records: Sequence[Record], *, between: Callable[[], None] = lambda: None
    ) -> TransformResult:
        """Transform some records, in order.

        :param between: called between two records, about twice a second: a slow transform must not keep the
            run from saving or stopping. What it raises comes through.
        """
        result = TransformResult()
        # Without a line of Python per record: 15 ms for a million of them.
        if UnreadableRecord in map(type, records):
            records = list(_readable(records, result.unreadable))
        if self._transform is None:
            result.produced, result.transformed = list(records), len(records)
            return result
        due = time.monotonic() + _BETWEEN_SECONDS
        for record in records:
            if time.monotonic() >= due:
                between()
                due = time.monotonic() + _BETWEEN_SECONDS
            try:
                produced = self._one(record)
            except Exception as error:
                if isinstance(error, BatchkitError) and not isinstance(error, RecordError):
                    raise
                result.rejected.append(_rejection(record, error))
                continue
            if produced:
                result.transformed += 1
                result.produced.extend(produced)
            else:
                result.filtered += 1
        return result

    def _one(self, record: Record) -> list[Record]:
        if isinstance(record, ReplayedRecord) and record.letter.stage == "sink":
            return [record]  # it was transformed before the sink gave it up
        document = _decode(record.body)
        returned: object = self._call(document, record)
        if returned is None:
            return []
        if isinstance(returned, Mapping):
            return [msgspec.structs.replace(record, body=_encode(returned))]
        if isinstance(returned, Iterable) and not isinstance(returned, str | bytes):
            return [
                msgspec.structs.replace(record, id=f"{record.id}-{position}", body=_encode(_document(item)))
                for position, item in enumerate(returned, start=1)
            ]
        raise RecordError(
            f"the transform returned {type(returned).__name__}, not a document, several, or None"
        )


def _readable(records: Sequence[Record], unreadable: list[Rejection]) -> Iterator[Record]:
    for record in records:
        if isinstance(record, UnreadableRecord):
            unreadable.append(
                Rejection(
                    record=record,
                    stage="source",
                    error_class="record",
                    error_type=record.error_type,
                    message=record.message,
                )
            )
        else:
            yield record


def _document(item: object) -> Mapping[str, Any]:
    if isinstance(item, Mapping):
        return item
    raise RecordError(f"the transform returned a list that holds {type(item).__name__}, not only documents")


def _rejection(record: Record, error: Exception) -> Rejection:
    return Rejection(
        record=record,
        stage="transform",
        error_class="record",
        error_type=type(error).__qualname__,
        message=str(error),
        stack_trace="".join(traceback.format_exception(error)),
    )


def _with_two_arguments(transform: Transform | None) -> Callable[[dict[str, Any], Record], object]:
    if transform is None:
        return lambda document, _record: document
    if _takes_two(transform):
        return transform
    return lambda document, _record: transform(document)


def _takes_two(transform: Transform) -> bool:
    try:
        parameters = inspect.signature(transform).parameters.values()
    except (TypeError, ValueError):  # some C functions have no signature
        return False
    positional = [
        parameter
        for parameter in parameters
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
        and parameter.default is parameter.empty
    ]
    return len(positional) >= 2  # noqa: PLR2004  # the document, and the record


def transform_fingerprint(transform: Transform | None) -> str:
    """Return a short hash that changes when the function's code, defaults or bound values change.

    Functions that it wraps (a decorator's, a partial's) are looked into; those that it calls by a global name
    are not: ``docs/limits.md`` says so.
    """
    if transform is None:
        return "none"
    digest = hashlib.sha256()
    _feed(digest, transform, seen=set())
    return digest.hexdigest()[:12]


def _feed(digest: hashlib._Hash, function: object, *, seen: set[int]) -> None:
    digest.update(qualified_name(function).encode())
    if id(function) in seen:  # a function's closure may hold the function itself
        return
    seen.add(id(function))
    if isinstance(function, functools.partial):
        bound = [function.func, *function.args, *sorted(function.keywords.items())]
    else:
        # An object with a __call__ of its own is known by that method's code.
        target = function if hasattr(function, "__code__") else _call_method(function)
        code = getattr(target, "__code__", None)
        if isinstance(code, CodeType):
            _feed_code(digest, code)
        bound = [
            *(getattr(target, "__defaults__", None) or ()),
            *sorted((getattr(target, "__kwdefaults__", None) or {}).items()),
            *map(_content, getattr(target, "__closure__", None) or ()),
        ]
    for value in bound:
        if callable(value):  # what a decorator or a partial wraps is where the work is done
            _feed(digest, value, seen=seen)
        else:
            digest.update(repr(plain(value)).encode())


def _call_method(function: object) -> object:
    return inspect.getattr_static(type(function), "__call__", None)


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that is not set yet
        return None


def _feed_code(digest: hashlib._Hash, code: CodeType) -> None:
    # Not the constants' repr as a whole: nested code objects carry addresses, and sets have no fixed order.
    digest.update(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _feed_code(digest, constant)
        elif isinstance(constant, frozenset):
            digest.update(repr(sorted(map(repr, constant))).encode())
        else:
            digest.update(repr(constant).encode())
