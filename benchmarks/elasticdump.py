"""elasticdump from npm, and an answer to the question that the minimal server build leaves open."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.elasticsearch_distribution import VERSION as SERVER_VERSION
from tests.support.fault_proxy import Status, fault_proxy

VERSION = "6.125.1"
PAGE_RECORDS = 10_000  # its fastest; its default of 100 is three to four times as slow
INSTALL_SECONDS = 300

ROOT = Status(
    200, json.dumps({"version": {"number": SERVER_VERSION}}).encode(), (("Content-Type", "application/json"),)
)
_ASKS_THERE = Path(__file__).with_name("elasticdump_version.cjs")


def installed(cache: Path) -> Path | None:
    """Return its program, installed into a cache folder when it is not there; None without node and npm.

    :raises RuntimeError: npm cannot install it.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    folder = cache / f"elasticdump-{VERSION}"
    program = folder / "node_modules" / "elasticdump" / "bin" / "elasticdump"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(  # noqa: S603  # a fixed command
            ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), f"elasticdump@{VERSION}"],  # noqa: S607  # as it is on the PATH
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"npm could not install elasticdump {VERSION}: {done.stderr[-1_000:]}")
    return program


@contextmanager
def answered_version() -> Iterator[dict[str, str]]:
    """Answer ``GET /``, which elasticdump begins with and the minimal build of the server does not know.

    Gives the variables that lead this one request elsewhere. All others go straight to the server: nothing
    stands in between, so nothing is charged.
    """
    with fault_proxy("http://127.0.0.1:9", lambda _path, _number: ROOT) as (url, _):
        yield {"NODE_OPTIONS": f"--require {_ASKS_THERE}", "BENCH_VERSION_PORT": str(urlsplit(url).port)}


def to_s3(program: Path, url: str, index: str, target: str, s3: Mapping[str, str]) -> list[str]:
    """Return the command that exports an index into one compressed object.

    :param url: of the server.
    :param target: ``s3://bucket/key``.
    :param s3: boto3's variables for the S3 API.
    """
    return [
        *("node", str(program), f"--input={url}/{index}", f"--output={target}", "--type=data"),
        *(f"--limit={PAGE_RECORDS}", "--s3Compress", "--s3ForcePathStyle=true"),
        f"--s3Endpoint={s3['AWS_ENDPOINT_URL_S3']}",
        f"--s3Region={s3['AWS_DEFAULT_REGION']}",
        f"--s3AccessKeyId={s3['AWS_ACCESS_KEY_ID']}",
        f"--s3SecretAccessKey={s3['AWS_SECRET_ACCESS_KEY']}",
    ]
