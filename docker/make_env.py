"""Writes the secrets of docker-compose.yml into .env: random, made once, readable by its owner only."""  # noqa: INP001  # a script, no package

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _long() -> str:
    return secrets.token_hex(64)


def _short() -> str:
    # Hexadecimal: these stand in URLs and in JSON as they are.
    return secrets.token_hex(16)


MADE: dict[str, Callable[[], str]] = {
    "POSTGRES_PASSWORD": _short,
    "AIRFLOW_ADMIN_PASSWORD": _short,
    "AIRFLOW_FERNET_KEY": _fernet_key,
    "AIRFLOW_SECRET_KEY": _long,
    "AIRFLOW_JWT_SECRET": _long,
    "S3_ACCESS_KEY": _short,
    "S3_SECRET_KEY": _short,
}


def write(file: Path) -> list[str]:
    """Add what is missing; what is there stays, because the volumes hold data that was made with it.

    :returns: the names that were added.
    """
    kept = file.read_text(encoding="utf-8") if file.exists() else ""
    there = {line.partition("=")[0].strip() for line in kept.splitlines()}
    missing = [name for name in MADE if name not in there]
    if missing:
        if kept and not kept.endswith("\n"):
            kept += "\n"
        added = "".join(f"{name}={MADE[name]()}\n" for name in missing)
        # A file of its own, renamed: neither half a file nor, for a moment, one that others can read.
        fresh = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as output:
            output.write(kept + added)
        fresh.replace(file)
    file.chmod(0o600)
    return missing


if __name__ == "__main__":
    file = Path(sys.argv[1] if len(sys.argv) > 1 else ".env")
    added = write(file)
    print(f"{file}: {'added ' + ', '.join(added) if added else 'complete already'}")  # noqa: T201  # a script
