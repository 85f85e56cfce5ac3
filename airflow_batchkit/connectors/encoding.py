"""How records that are not JSON yet become JSON: exactly, or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from airflow_batchkit.engine.exceptions import RecordError

_encode = msgspec.json.Encoder(decimal_format="number").encode
# A finite number never shows as one of these: only when they occur is it worth looking at the values.
_SIGNS_OF_NON_FINITE = (b"null", b"NaN", b"Infinity")


def encode_record(fields: Mapping[str, Any]) -> bytes:
    """Encode one record as a JSON object, its fields in their order.

    Whole numbers keep all their digits and decimals exactly theirs (``1.10``), as JSON numbers; bytes become
    base64 text; dates and times ISO 8601 text.

    :raises RecordError: a value has no exact form in JSON: NaN, an infinity, text that is not Unicode, a type
        that JSON does not know.
    """
    try:
        body = _encode(fields)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        # Not str(error) of a UnicodeEncodeError: it would quote the record.
        reason = error.reason if isinstance(error, UnicodeEncodeError) else str(error)
        raise RecordError(f"cannot be written as JSON: {reason}") from None
    if any(sign in body for sign in _SIGNS_OF_NON_FINITE):
        for name, value in fields.items():
            if _holds_non_finite(value):
                raise RecordError(f"field {name!r} holds NaN or an infinity, which JSON cannot hold")
    return body


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
