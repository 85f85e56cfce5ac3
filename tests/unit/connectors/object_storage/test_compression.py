"""Compressed pieces read back as what went in."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable

import pytest
import zstandard

from airflow_batchkit.connectors.object_storage.compression import (
    EXTENSIONS,
    check_compression,
    make_compressor,
)
from airflow_batchkit.engine.exceptions import UsageError

READERS: dict[str | None, Callable[[bytes], bytes]] = {
    None: bytes,
    "gzip": gzip.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}
PIECES = [b'{"a":%d}\n' % number * 50 for number in range(200)]


def compress(name: str | None) -> bytes:
    """Compress the pieces one by one."""
    compressor = make_compressor(name)
    return b"".join(map(compressor.compress, PIECES)) + compressor.flush()


@pytest.mark.parametrize("name", EXTENSIONS)
def test_round_trip_and_same_bytes_each_time(name: str | None) -> None:
    """What was compressed reads back, and compressing it again gives the same bytes (no time stamp)."""
    assert READERS[name](compress(name)) == b"".join(PIECES)
    assert compress(name) == compress(name)


def test_gzip_without_isal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ISA-L has no wheel, zlib writes gzip just as well."""
    monkeypatch.setitem(sys.modules, "isal", None)
    assert gzip.decompress(compress("gzip")) == b"".join(PIECES)


def test_unknown_compression_is_refused() -> None:
    """The message names what may be chosen."""
    with pytest.raises(UsageError, match="'gzip', 'zstd' or None"):
        check_compression("bzip2")


def test_zstd_says_how_to_read_it() -> None:
    """The stream begins with zstd's own mark, which every tool recognises, and is smaller than gzip's."""
    assert compress("zstd").startswith(b"\x28\xb5\x2f\xfd")
    assert len(compress("zstd")) < len(compress("gzip"))


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python has zstd itself from 3.14 on")
def test_zstd_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra is found when the settings are checked, not hours later."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UsageError, match=r"airflow-batchkit\[zstd\]"):
        check_compression("zstd")
