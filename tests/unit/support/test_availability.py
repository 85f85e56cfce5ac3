"""Where a real server cannot be had, the tests say how to get it, and CI does not look away."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import elasticsearch_distribution
from tests.support.elasticsearch_distribution import MissingError, elasticsearch_home, java_home, java_version
from tests.support.processes import unavailable


def _jdk(folder: Path, version: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "javac").touch()
    (folder / "release").write_text(f'IMPLEMENTOR="Test"\nJAVA_VERSION="{version}"\n')
    return folder


@pytest.fixture
def no_jdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the JDKs of this machine."""
    for variable in ("BATCHKIT_TEST_JAVA_HOME", "ES_JAVA_HOME", "JAVA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(elasticsearch_distribution, "_jdk_folders", list)


@pytest.mark.usefixtures("no_jdk")
def test_a_missing_jdk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a JDK that is new enough, the reason names the version, a package and the variable."""
    monkeypatch.setenv("JAVA_HOME", str(_jdk(tmp_path / "old", "17.0.15")))

    with pytest.raises(MissingError, match=r"no JDK 21 or newer.*apt-get install.*BATCHKIT_TEST_JAVA_HOME"):
        java_home()


@pytest.mark.usefixtures("no_jdk")
def test_the_newest_jdk_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several JDKs the newest runs Elasticsearch, unless a variable names another that is new enough."""
    homes = [_jdk(tmp_path / version, version) for version in ("17.0.15", "25.0.3", "21")]
    monkeypatch.setattr(elasticsearch_distribution, "_jdk_folders", lambda: homes)

    assert java_version(java_home()) == 25
    monkeypatch.setenv("BATCHKIT_TEST_JAVA_HOME", str(tmp_path / "21"))
    assert java_version(java_home()) == 21


def test_a_missing_maven_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Maven and without a cached Elasticsearch, the reason names both ways to get one."""
    monkeypatch.setattr(elasticsearch_distribution, "CHECKOUT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MissingError, match=r"Maven.*apt-get install maven.*BATCHKIT_TEST_ELASTICSEARCH_URL"):
        elasticsearch_home()


def test_ci_fails_where_others_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing skips a test on a developer's machine and fails it where CI=true."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no server"):
        unavailable("no server")

    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI=true and no server"):
        unavailable("no server")
