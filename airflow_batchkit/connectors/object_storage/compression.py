"""Compressing while a batch fills: what goes in comes out in pieces, in bounded memory."""

from __future__ import annotations

import sys
import zlib
from typing import Protocol

from typing_extensions import override

from airflow_batchkit.engine.exceptions import UsageError

_GZIP_WINDOW = 31
_ZSTD_LEVEL = 3

EXTENSIONS = {None: "", "gzip": ".gz", "zstd": ".zst"}


class Compressor(Protocol):
    """Takes bytes, gives bytes; equal input gives equal output (no time stamp in any header)."""

    def compress(self, data: bytes, /) -> bytes:
        """Take data and return what is ready, maybe nothing."""
        ...

    def flush(self) -> bytes:
        """Return the rest; nothing may be added after."""
        ...


class _Plain(Compressor):
    @override
    def compress(self, data: bytes, /) -> bytes:
        return data

    @override
    def flush(self) -> bytes:
        return b""


def check_compression(name: str | None) -> None:
    """Refuse a compression that is unknown, or whose library is missing.

    :raises UsageError: what may be chosen, or what to install.
    """
    if name not in EXTENSIONS:
        raise UsageError(f"compression={name!r}: must be 'gzip', 'zstd' or None")
    if name == "zstd":
        _zstd()


def make_compressor(name: str | None) -> Compressor:
    """Make a compressor for one object.

    :param name: ``"gzip"``, ``"zstd"`` or None.
    """
    if name is None:
        return _Plain()
    return _gzip() if name == "gzip" else _zstd()


def _gzip() -> Compressor:
    # ISA-L is four times as fast at about the same size; where there is no wheel of it, zlib does the same.
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW)
    compressor: Compressor = isal_zlib.compressobj(1, isal_zlib.DEFLATED, _GZIP_WINDOW)
    return compressor


def _zstd() -> Compressor:
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.ZstdCompressor(level=_ZSTD_LEVEL)
    try:
        import zstandard
    except ImportError as error:
        raise UsageError(
            "compression='zstd' needs the package zstandard: pip install 'airflow-batchkit[zstd]'"
        ) from error
    compressor: Compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    return compressor
