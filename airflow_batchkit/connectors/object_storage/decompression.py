"""Decompressing while an object arrives: pieces in, pieces out, in bounded memory whatever comes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Protocol, cast

from typing_extensions import override

from airflow_batchkit.connectors.object_storage.compression import check_compression

_GZIP_WINDOW = 31
_LARGEST_PIECE = 512 * 1024
# A few bytes of zstd may stand for a block of 128 KiB, and its decompressor knows no limit for one answer.
_ZSTD_STEP = 256


class BrokenStreamError(Exception):
    """The bytes are not one whole compressed stream."""


class Decompressor(Protocol):
    """Takes the bytes of one object in order, gives what they stand for."""

    def pieces(self, data: bytes, /) -> Iterator[bytes]:
        """Give what these bytes stand for.

        :raises BrokenStreamError: they are damaged, or go on behind the end of the stream.
        """
        ...

    def finish(self) -> None:
        """Make sure that the stream has ended.

        :raises BrokenStreamError: it is cut off.
        """
        ...


class _Plain(Decompressor):
    @override
    def pieces(self, data: bytes, /) -> Iterator[bytes]:
        yield data

    @override
    def finish(self) -> None:
        """Do nothing: plain bytes have no end of their own."""


class _Stream(Decompressor):
    """One stream of zlib, ISA-L or zstandard, which all look alike.

    :param name: of the format, for messages.
    :param stream: made by ``decompressobj``.
    :param errors: what it raises.
    """

    def __init__(self, name: str, stream: Any, errors: tuple[type[Exception], ...]) -> None:
        self._name = name
        self._stream = stream
        self._errors = errors

    @override
    def pieces(self, data: bytes, /) -> Iterator[bytes]:
        if self._stream.eof:
            raise BrokenStreamError(f"goes on behind the end of its {self._name} stream")
        try:
            yield from self._decompressed(data)
        except self._errors as error:
            raise BrokenStreamError(f"is no valid {self._name} ({' '.join(str(error).split())})") from error
        if self._stream.unused_data:
            raise BrokenStreamError(f"goes on behind the end of its {self._name} stream")

    @override
    def finish(self) -> None:
        if not self._stream.eof:
            raise BrokenStreamError(f"ends in the middle of its {self._name} stream")

    def _decompressed(self, data: bytes) -> Iterator[bytes]:
        while True:
            piece = self._stream.decompress(data, _LARGEST_PIECE)
            yield piece
            data = self._stream.unconsumed_tail
            if self._stream.eof or not (data or len(piece) == _LARGEST_PIECE):
                return


class _Zstd(_Stream):
    @override
    def _decompressed(self, data: bytes) -> Iterator[bytes]:
        held, size = [], 0
        for start in range(0, len(data), _ZSTD_STEP):
            if self._stream.eof:
                raise BrokenStreamError(f"goes on behind the end of its {self._name} stream")
            held.append(self._stream.decompress(data[start : start + _ZSTD_STEP]))
            size += len(held[-1])
            if size >= _LARGEST_PIECE:
                yield b"".join(held)
                held, size = [], 0
        yield b"".join(held)


def make_decompressor(name: str | None) -> Decompressor:
    """Make a decompressor for one object.

    :param name: ``"gzip"``, ``"zstd"`` or None.
    :raises UsageError: the compression is unknown, or its library is missing.
    """
    check_compression(name)
    if name is None:
        return _Plain()
    return _gzip() if name == "gzip" else _zstd()


def _gzip() -> Decompressor:
    try:
        from isal import isal_zlib
    except ImportError:
        import zlib

        return _Stream("gzip", zlib.decompressobj(_GZIP_WINDOW), (zlib.error,))
    return _Stream("gzip", isal_zlib.decompressobj(_GZIP_WINDOW), (cast("type[Exception]", isal_zlib.error),))


def _zstd() -> Decompressor:
    if sys.version_info >= (3, 14):
        from compression import zstd

        return _Zstd("zstd", zstd.ZstdDecompressor(), (zstd.ZstdError,))
    import zstandard

    stream = zstandard.ZstdDecompressor().decompressobj()
    return _Zstd("zstd", stream, (cast("type[Exception]", zstandard.ZstdError),))
