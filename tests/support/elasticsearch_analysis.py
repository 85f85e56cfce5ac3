"""Adds to the minimal Elasticsearch what it needs to keep API keys: a small plugin, compiled here."""

from __future__ import annotations

import subprocess
import tempfile
import zipfile
from pathlib import Path

_SOURCE = Path(__file__).parent / "elasticsearch_plugin" / "SecurityIndexAnalysis.java"
_NAME = "security-index-analysis"
_DESCRIPTOR = """\
name={name}
description=What the index of API keys names in its settings
version=1
elasticsearch.version={version}
java.version=17
classname={classname}
"""


def add_analysis(home: Path, *, version: str, java: Path) -> None:
    """Compile the plugin against an unpacked distribution and put it there; nothing happens the second time.

    :param java: the home of a JDK.
    :raises subprocess.CalledProcessError: the compiler refuses it.
    """
    plugin = home / "plugins" / _NAME
    if plugin.exists():
        return
    with tempfile.TemporaryDirectory(dir=home, prefix="plugin-") as made:
        folder = Path(made)
        classes, ready = folder / "classes", folder / _NAME
        compile_for_17 = [f"{java}/bin/javac", "--release", "17", "-cp", f"{home}/lib/*", "-d", str(classes)]
        subprocess.run([*compile_for_17, str(_SOURCE)], check=True, capture_output=True, timeout=120)
        ready.mkdir()
        with zipfile.ZipFile(ready / f"{_NAME}.jar", "w") as jar:
            for path in classes.rglob("*.class"):
                jar.write(path, path.relative_to(classes))
        (ready / "plugin-descriptor.properties").write_text(
            _DESCRIPTOR.format(name=_NAME, version=version, classname=_SOURCE.stem)
        )
        # The folder appears whole or not at all.
        ready.rename(plugin)
