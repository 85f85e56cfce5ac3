"""What a node of the tests' own Elasticsearch keeps on disk: configuration, users, certificates, data."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.support.certificates import ServerCertificate

PASSWORD = "password-of-the-tests"
CA = "ca.crt"


def new_folder() -> Path:
    """Make an empty folder for a node."""
    return Path(tempfile.mkdtemp(prefix="batchkit-elasticsearch-"))


def fill(
    folder: Path,
    distribution: Path,
    *,
    settings: Mapping[str, object],
    users: Mapping[str, Sequence[str]],
    roles: Mapping[str, object],
) -> None:
    """Write a node's configuration and make room for its data.

    :param distribution: the unpacked Elasticsearch.
    :param settings: of ``elasticsearch.yml``; one that is None is left out.
    :param users: name → names of its roles.
    :param roles: name → definition, as ``roles.yml`` takes it.
    """
    config = folder / "config"
    shutil.copytree(distribution / "config", config, dirs_exist_ok=True)
    given = {name: value for name, value in settings.items() if value is not None}
    _write_yaml(config / "elasticsearch.yml", given)
    _write_yaml(config / "roles.yml", roles)
    _write_users(config, users)
    for name in ("data", "logs", "tmp"):
        (folder / name).mkdir()
    _give_to(unprivileged_user(), folder)


def write_certificate(folder: Path, certificate: ServerCertificate) -> dict[str, object]:
    """Write what a node needs to speak https, and return the settings that make it do so."""
    config = folder / "config"
    config.mkdir()
    (config / CA).write_bytes(certificate.authority)
    (config / "node.crt").write_bytes(certificate.certificate)
    (config / "node.key").write_bytes(certificate.key)
    prefix = "xpack.security.http.ssl"
    return {
        f"{prefix}.enabled": True,
        f"{prefix}.certificate": "node.crt",
        f"{prefix}.key": "node.key",
        f"{prefix}.certificate_authorities": [CA],
    }


def unprivileged_user() -> int | None:
    """Return whom to run as where we are root, as which Elasticsearch refuses to run; else nobody else."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def readable_by(user: int | None, distribution: Path, folder: Path) -> Path:
    """Return the distribution, copied into the node's folder where its own lies under a closed folder."""
    if user is None or all(parent.stat().st_mode & 0o001 for parent in distribution.parents):
        return distribution
    copy = folder / distribution.name
    if not copy.exists():
        shutil.copytree(distribution, copy)
        _give_to(user, copy)
    return copy


def _write_yaml(path: Path, values: Mapping[str, object]) -> None:
    path.write_text("".join(f"{json.dumps(name)}: {json.dumps(value)}\n" for name, value in values.items()))


def _write_users(config: Path, users: Mapping[str, Sequence[str]]) -> None:
    """Write the two files of Elasticsearch's file realm: who there is, and who has which role."""
    rounds, salt = 1000, b"the salt of the tests, 32 bytes."
    digest = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), salt, rounds, dklen=32)
    hashed = f"{{PBKDF2}}{rounds}${b64encode(salt).decode()}${b64encode(digest).decode()}"
    (config / "users").write_text("".join(f"{name}:{hashed}\n" for name in users))
    roles = sorted({role for has in users.values() for role in has})
    lines = [f"{role}:{','.join(name for name in users if role in users[name])}\n" for role in roles]
    (config / "users_roles").write_text("".join(lines))


def _give_to(user: int | None, folder: Path) -> None:
    if user is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, pwd.getpwuid(user).pw_gid)
