"""How records that are not JSON yet become JSON: exactly, or not at all."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from airflow_batchkit.engine.exceptions import RecordError

_encode = msgspec.json.Encoder(decimal_format="number").encode
# A finite number never shows as one of these: only when they occur is it worth looking at the values.
_SIGNS_OF_NON_FINITE = (b"null", b"NaN", b"Infinity")
_REFUSED = (TypeError, ValueError, RecursionError, msgspec.MsgspecError)


class UnreadableText:
    """What stands for a text that the driver cannot decode.

    :param raw: its bytes.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw = raw


def encode_record(fields: Mapping[str, Any]) -> bytes:
    """Encode one record as a JSON object, its fields in their order.

    Whole numbers keep all their digits and decimals exactly theirs (``1.10``), as JSON numbers; bytes become
    base64 text; dates and times ISO 8601 text.

    :raises RecordError: a value has no exact form in JSON: NaN, an infinity, text that is not Unicode, a type
        that JSON does not know.
    """
    try:
        body = _encode(fields)
        if any(sign in body for sign in _SIGNS_OF_NON_FINITE):
            _refuse_non_finite(fields)
    except _REFUSED:
        raise RecordError(_trouble(fields)) from None
    return body


def salvage(fields: Mapping[str, Any]) -> bytes:
    """Encode what there is of a record that :func:`encode_record` refuses, so that nothing of it is lost.

    :returns: ``{"readable": {…}, "unreadable": {…}}``. Fields that JSON can hold are in the first as ever.
        In the second, bytes and texts are ``{"base64": …}``, everything else is ``{"python": …}``.
    """
    readable: list[bytes] = []
    unreadable: dict[str, Any] = {}
    for name, value in fields.items():
        try:
            readable.append(encode_record({name: value})[1:-1])
        except RecordError:
            unreadable[_printable(name)] = _kept(value)
    return b'{"readable":{%b},"unreadable":%b}' % (b",".join(readable), _encode(unreadable))


def _trouble(fields: Mapping[str, Any]) -> str:
    """Name the first field that cannot be encoded, and why; an error's own text might quote the record."""
    for name, value in fields.items():
        try:
            _encode({name: value})
        except UnicodeEncodeError as error:
            return f"field {name!a} cannot be written as JSON: {error.reason}"
        except _REFUSED as error:
            if isinstance(value, UnreadableText):
                return f"field {name!a} holds text that is not UTF-8"
            return f"field {name!a} cannot be written as JSON: {error}"
    return "it is nested too deeply to be written as JSON"


def _refuse_non_finite(fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if _holds_non_finite(value):
            raise RecordError(f"field {name!a} holds NaN or an infinity, which JSON cannot hold")


def _kept(value: object) -> dict[str, str]:
    if isinstance(value, UnreadableText):
        return {"base64": base64.b64encode(value.raw).decode()}
    if isinstance(value, str):
        return {"base64": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()}
    try:
        # A whole number that is too long for decimal text has a shorter one.
        return {"python": _printable(hex(value) if isinstance(value, int) else repr(value))}
    except Exception as error:  # noqa: BLE001  # whatever a foreign repr() raises: its record is given up anyway
        return {"python": f"<{type(value).__qualname__} without a text: {type(error).__qualname__}>"}


def _printable(text: object) -> str:
    return str(text).encode("utf-8", "backslashreplace").decode()


def _holds_non_finite(value: object) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Decimal):
        return not value.is_finite()
    if isinstance(value, Mapping):
        return any(_holds_non_finite(item) for item in value.values())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        return any(_holds_non_finite(item) for item in value)
    return False
