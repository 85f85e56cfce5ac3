"""docker-compose.yml without an engine: what reading it can check, and its seed on real servers."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]  # has no types of its own

from tests.support.command_line import run

if TYPE_CHECKING:
    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.s3 import S3Server

CHECKOUT = Path(__file__).resolve().parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"seed", "airflow-init"}
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")
SECRET = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|FERNET|JWT")
ORDERS = 700


def script(name: str) -> ModuleType:
    """Load one of the scripts beside the Dockerfile."""
    spec = importlib.util.spec_from_file_location(name, CHECKOUT / "docker" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(content: object) -> list[str]:
    """Return all texts in a value."""
    if isinstance(content, dict):
        return [text for value in content.values() for text in texts(value)]
    if isinstance(content, list):
        return [text for value in content for text in texts(value)]
    return [content] if isinstance(content, str) else []


def with_variables(text: str, variables: dict[str, str]) -> str:
    """Put variables into a text as Compose does."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        return variables.get(name) or (rest if kind == "-" else pytest.fail(f"{name} is not set"))

    return VARIABLE.sub(value, text).replace("$$", "$")


def env_file(folder: Path) -> dict[str, str]:
    """Let the script make an .env, and read it as Compose does."""
    script("make_env").write(folder / ".env")
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_every_variable_is_made(tmp_path: Path) -> None:
    """What the file cannot do without is what the script makes; everything else has a default."""
    found = [match.groups() for text in texts(COMPOSE) for match in VARIABLE.finditer(text)]
    needed = {name for name, kind, _ in found if kind != "-"}
    assert needed == set(env_file(tmp_path))
    assert all(kind == "?" for name, kind, _ in found if name in needed)


def test_no_secret_stands_in_the_file(tmp_path: Path) -> None:
    """Whatever is named like a secret is a variable, and no two files have the same values."""
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key):
                assert VARIABLE.fullmatch(value), f"{name}: {key}"
    other = tmp_path / "other"
    other.mkdir()
    first, second = env_file(tmp_path), env_file(other)
    assert all(first[name] != second[name] for name in first)
    assert all(len(value) >= 32 for value in first.values())


def test_the_env_file_is_private_and_made_once(tmp_path: Path) -> None:
    """Only its owner may read it; a second call changes nothing but adds what is missing."""
    file = tmp_path / ".env"
    file.write_text("AIRFLOW_PORT=8081\nPOSTGRES_PASSWORD=kept")
    make_env = script("make_env")
    assert "POSTGRES_PASSWORD" not in make_env.write(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = file.read_text()
    assert written.startswith("AIRFLOW_PORT=8081\nPOSTGRES_PASSWORD=kept\nAIRFLOW_")
    assert make_env.write(file) == []
    assert file.read_text() == written
    assert [found.name for found in tmp_path.iterdir()] == [".env"]
    ignored = subprocess.run(["git", "check-ignore", ".env"], cwd=CHECKOUT, check=False, capture_output=True)
    assert ignored.returncode in {0, 128}  # 128: not a clone


def test_nothing_is_bound_beyond_this_machine() -> None:
    """Every published port is bound to loopback."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not str(port).startswith("127.0.0.1:")] == []
    assert all("network_mode" not in service for service in SERVICES.values())


def test_every_service_is_checked_or_ends() -> None:
    """A service says when it is healthy, or does one thing and ends; who waits, waits for just that."""
    for name, service in SERVICES.items():
        assert ("healthcheck" in service) is (name not in ONE_SHOT), name
        assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert how == {"condition": expected}, f"{name} waits for {other}"


def test_images_are_pinned() -> None:
    """Every image names its version, and the two that say Airflow's agree."""
    base = re.search(r"^FROM (\S+)$", (CHECKOUT / "docker/Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    images = {service["image"] for service in SERVICES.values()} | {base[1]}
    assert [image for image in images if not re.fullmatch(r"[a-z/-]+:\d+(\.\d+)*", image)] == []
    assert base[1].partition(":")[2] == COMPOSE["x-airflow"]["image"].partition(":")[2]


def test_every_file_that_is_named_exists() -> None:
    """Build files, what the image copies, and mounted folders are in the checkout; volumes are declared."""
    build = COMPOSE["x-airflow"]["build"]
    dockerfile = CHECKOUT / build["context"] / build["dockerfile"]
    ignored = dockerfile.with_name(f"{dockerfile.name}.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY --chown=\S+ (.+) \S+$", dockerfile.read_text(), re.MULTILINE):
        for source in line.split():
            assert (CHECKOUT / source).exists(), source
            assert f"!{source}" in ignored, source
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (CHECKOUT / source).is_dir() if source.startswith(".") else source in COMPOSE["volumes"]


def test_every_connection_of_the_examples_is_defined() -> None:
    """What the example DAGs name as a connection, all parts of Airflow know; the JSON ones can be read."""
    dags = "".join(file.read_text() for file in (CHECKOUT / "dags").glob("*.py"))
    named = set(re.findall(r'conn_id="(\w+)"', dags)) | {"elasticsearch_default", "aws_default"}
    for name, service in SERVICES.items():
        if service["image"] != COMPOSE["x-airflow"]["image"]:
            continue
        defined = {key.removeprefix("AIRFLOW_CONN_").lower() for key in service["environment"]}
        assert named <= defined, name
        assert service["environment"]["AIRFLOW__API_AUTH__JWT_SECRET"].startswith("${AIRFLOW_JWT_SECRET")


@pytest.mark.elasticsearch
@pytest.mark.s3
def test_the_seed_and_an_example_run_on_what_compose_sets(
    elasticsearch_server: ElasticsearchEndpoint, s3_server: S3Server, tmp_path: Path
) -> None:
    """With the environment of the file, the seed fills real servers, and a DAG exports a day of it."""
    host, _, port = elasticsearch_server.url.removeprefix("http://").partition(":")
    moved = {
        '"host": "elasticsearch", "port": 9200': f'"host": "{host}", "port": {port}',
        "http://rustfs:9000": s3_server.endpoint_url,
        "/opt/airflow/data": str(tmp_path),
    }
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "SEED_ORDERS": str(ORDERS)}
    secrets = env_file(tmp_path)
    for key, value in COMPOSE["x-airflow"]["environment"].items():
        text = with_variables(value, secrets)
        for there, here in moved.items():
            text = text.replace(there, here)
        environment[key] = text
    try:
        for _ in range(2):  # it runs at each start
            seeded = subprocess.run(
                [sys.executable, str(CHECKOUT / "docker/seed.py")],
                env=environment,
                cwd=CHECKOUT,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert seeded.returncode == 0, seeded.stderr
        assert elasticsearch_server.request("GET", "/orders/_count")["count"] == ORDERS

        day = datetime.now(tz=UTC).date() - timedelta(days=2)
        done = run(
            *("run", str(CHECKOUT / "dags/example_nightly_export.py"), "export", "--logical-date", str(day)),
            environment=environment,
        )
        assert done.returncode == 0, done.stderr
        prefix = f"nightly/orders/ds={day}"
        with s3_server.client() as s3:
            manifest = json.load(s3.get_object(Bucket="lake", Key=f"{prefix}/manifest.json")["Body"])
            bodies = [
                s3.get_object(Bucket="lake", Key=f"{prefix}/{part['key']}")["Body"].read()
                for part in manifest["parts"]
            ]
        records = [json.loads(line) for body in bodies for line in gzip.decompress(body).splitlines()]
        assert len(records) == pytest.approx(ORDERS / 7, abs=2)
        assert {record["created_at"][:10] for record in records} == {str(day)}

        embedded = run(
            *("run", str(CHECKOUT / "dags/example_embedded.py"), "export_orders", "--local"),
            environment=environment,
        )
        assert f"{ORDERS:,}" in embedded.stdout, embedded.stderr
    finally:
        elasticsearch_server.request("DELETE", "/orders")
        s3_server.empty("lake")
