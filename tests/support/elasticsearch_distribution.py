"""Where the tests' Elasticsearch comes from: a zip of Maven Central, unpacked once, and an installed JDK."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.elasticsearch_analysis import add_analysis

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "9.5.3"
VERSION_8 = "8.19.21"
OLDEST_JAVA = 21
CHECKOUT = Path(__file__).resolve().parents[2]
_ARTIFACT = "org.elasticsearch.distribution.integ-test-zip:elasticsearch"
_JAVA_VARIABLES = ("BATCHKIT_TEST_JAVA_HOME", "ES_JAVA_HOME", "JAVA_HOME")
_JDK_FOLDERS = (
    "/usr/lib/jvm/*",
    "/opt/*",
    "/opt/java/*",
    "/usr/local/lib/jvm/*",
    "/usr/local/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
)
_OWN_JDK_FOLDERS = (".sdkman/candidates/java/*", ".jdks/*", ".jdk/*")


class MissingError(RuntimeError):
    """Something that a real Elasticsearch needs is not on this machine; the message says how to get it."""


def java_home() -> Path:
    """Return the home of a JDK that runs Elasticsearch: the one asked for, else the newest one found."""
    for variable in _JAVA_VARIABLES:
        home = os.environ.get(variable)
        if home and java_version(Path(home)) >= OLDEST_JAVA:
            return Path(home)
    homes = {home.resolve() for home in _jdk_folders()}
    found = sorted((java_version(home), home) for home in homes)
    if not found or found[-1][0] < OLDEST_JAVA:
        raise MissingError(
            f"no JDK {OLDEST_JAVA} or newer was found for the real Elasticsearch: install one "
            f"(`apt-get install openjdk-{OLDEST_JAVA}-jdk-headless`), or set BATCHKIT_TEST_JAVA_HOME to one"
        )
    return found[-1][1]


def java_version(home: Path) -> int:
    """Return the major version that a JDK's ``release`` file states; 0 where there is no compiler."""
    release = home / "release"
    if not release.is_file() or not (home / "bin" / "javac").exists():
        return 0
    stated = re.search(r'^JAVA_VERSION="(\d+)', release.read_text(), re.MULTILINE)
    return int(stated.group(1)) if stated else 0


def elasticsearch_home(version: str = VERSION) -> Path:
    """Return the unpacked distribution, fetched by Maven the first time; test runs wait for one another."""
    cache = CHECKOUT / ".cache"
    home = cache / f"elasticsearch-{version}"
    cache.mkdir(exist_ok=True)
    with _locked(cache / "elasticsearch.lock"):
        if not home.exists():
            _unpack(_fetch(cache, version), home)
        add_analysis(home, version=version, java=java_home())
    return home


def _jdk_folders() -> Iterator[Path]:
    for pattern in _JDK_FOLDERS:
        yield from Path("/").glob(pattern.lstrip("/"))
    for pattern in _OWN_JDK_FOLDERS:
        yield from Path.home().glob(pattern)
    java = shutil.which("java")
    if java:
        yield Path(java).resolve().parents[1]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(folder: Path, version: str) -> Path:
    artifact, archive = f"{_ARTIFACT}:{version}:zip", folder / f"elasticsearch-{version}.zip"
    if archive.exists():
        return archive
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingError(
            "Maven (mvn), which fetches the real Elasticsearch, is not on the PATH: install it "
            "(`apt-get install maven`), or set BATCHKIT_TEST_ELASTICSEARCH_URL to a server of your own"
        )
    command = [maven, "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=folder)
    if done.returncode != 0 or not archive.exists():
        said = (done.stdout + done.stderr).strip().partition("\n")[0] or "it said nothing"
        raise MissingError(
            f"Maven could not fetch {artifact} (exit code {done.returncode}; {said}): "
            f"put the zip at .cache/{archive.name}, or set BATCHKIT_TEST_ELASTICSEARCH_URL"
        )
    return archive


def _unpack(archive: Path, home: Path) -> None:
    unpacked = home.with_name(f"{home.name}.unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(unpacked)
    inner = unpacked / home.name
    # The zip carries no run bits, and neither plugins nor logs, which the start script expects.
    for script in (inner / "bin").iterdir():
        script.chmod(0o755)
    (inner / "plugins").mkdir(exist_ok=True)
    (inner / "logs").mkdir(exist_ok=True)
    inner.rename(home)
    unpacked.rmdir()
    archive.unlink()
