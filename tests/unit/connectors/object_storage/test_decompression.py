"""Compressed objects read back piece by piece; what is no whole stream is said to be none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.connectors.object_storage.compression import EXTENSIONS, make_compressor
from airflow_batchkit.connectors.object_storage.decompression import BrokenStreamError, make_decompressor
from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = b'{"a":1}\n' * 3_000_000
COMPRESSED = ["gzip", "zstd"]


@pytest.fixture(params=["isal", "zlib"])
def gzip_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ISA-L, or not."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)


def compressed(name: str | None) -> bytes:
    """Compress the text as the sink does."""
    compressor = make_compressor(name)
    return compressor.compress(TEXT) + compressor.flush()


def read(name: str | None, data: bytes, step: int = 1000) -> Iterator[bytes]:
    """Decompress some bytes that arrive in steps."""
    decompressor = make_decompressor(name)
    for start in range(0, len(data), step):
        yield from decompressor.pieces(data[start : start + step])
    decompressor.finish()


@pytest.mark.usefixtures("gzip_library")
@pytest.mark.parametrize("name", EXTENSIONS)
def test_reads_back_in_small_pieces(name: str | None) -> None:
    """The text comes back whole, never more than four megabytes at a time, whatever it was compressed to."""
    pieces = list(read(name, compressed(name)))

    assert b"".join(pieces) == TEXT
    assert max(map(len, pieces)) <= 2**22


@pytest.mark.usefixtures("gzip_library")
@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("step", [7, 100_000_000])
def test_what_is_no_whole_stream_is_refused(name: str, step: int) -> None:
    """Cut off, changed, or with more behind the end: each is said, wherever the pieces are cut."""
    data = compressed(name)
    with pytest.raises(BrokenStreamError, match=f"ends in the middle of its {name} stream"):
        list(read(name, data[:-5], step))
    with pytest.raises(BrokenStreamError, match=f"goes on behind the end of its {name} stream"):
        list(read(name, data + data, step))
    with pytest.raises(BrokenStreamError, match=f"is no valid {name}"):
        list(read(name, b"no such thing" * 10, step))


def test_unknown_compression_is_refused() -> None:
    """A compression that a newer version may know is wrong usage."""
    with pytest.raises(UsageError, match="must be 'gzip', 'zstd' or None"):
        make_decompressor("lz4")
