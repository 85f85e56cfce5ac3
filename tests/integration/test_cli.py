"""``batchkit copy`` as a person runs it: a process of its own, real servers, real signals."""

from __future__ import annotations

import gzip
import json
import os
import pty
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_batchkit.engine.checkpoint import Budget, Checkpoint, Counts, encode
from tests.support.command_line import BATCHKIT, environment_of, exported, run, start, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.elasticsearch import ElasticsearchEndpoint
    from tests.support.s3 import S3Server

ROWS = 6_000


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give the variables of a process that keeps its state in the test's own folder."""
    return environment_of(tmp_path / "state")


@pytest.fixture
def shop(tmp_path: Path) -> str:
    """Give the URL of a table of 6,000 orders."""
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database, database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, city TEXT)")
        database.executemany(
            "INSERT INTO orders VALUES (?, ?)", ((n, f"Zürich {n}") for n in range(1, ROWS + 1))
        )
    return f"sqlite://{tmp_path}/shop.db?table=orders"


def assert_whole(folder: Path) -> None:
    """Check that every order was exported once, in order, and that nothing is left over."""
    records = exported(folder)
    assert [record["id"] for record in records] == list(range(1, ROWS + 1))
    assert records[41] == {"_id": "42", "id": 42, "city": "Zürich 42"}
    named = {part["key"] for part in json.loads((folder / "manifest.json").read_bytes())["parts"]}
    assert {file.name for file in folder.rglob("part-*")} == named


def seconds_of(*command: str, environment: dict[str, str]) -> float:
    """Return the shortest time of five runs."""
    times = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
        times.append(time.monotonic() - began)
    return min(times)


def test_version_is_said_at_once(environment: dict[str, str]) -> None:
    """`batchkit --version` answers in under 0.3 s."""
    script = str(Path(sys.executable).parent / "batchkit")
    assert seconds_of(script, "--version", environment=environment) < 0.3


def test_copy_imports_no_airflow(shop: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """A whole copy loads neither Airflow nor a client library that it does not need."""
    program = (
        "import sys; from airflow_batchkit.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('LOADED', sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", program, "copy", shop, f"file://{tmp_path}/out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    loaded = done.stdout.rpartition("LOADED")[2]
    assert "'airflow_batchkit'" in loaded
    for name in (
        "airflow",
        "boto3",
        "botocore",
        "elasticsearch",
        "elastic_transport",
        "slack_sdk",
        "sqlalchemy",
    ):
        assert f"'{name}'" not in loaded


def test_copy_of_a_table_to_a_folder(shop: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """Every row arrives once; the log is on standard error, the summary on standard output; exit code 0."""
    done = run("copy", shop, f"file://{tmp_path}/out", environment=environment)
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "out")
    assert f"{ROWS:,}" in done.stdout
    assert "INFO" in done.stderr
    assert "Traceback" not in done.stderr


def test_second_run_replaces_the_first(shop: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """After a completed run the same command begins a new one, which replaces the output."""
    command = ("copy", shop, f"file://{tmp_path}/out", "--compression", "gzip", "--no-progress")
    for _ in range(2):
        assert run(*command, environment=environment).returncode == 0
        assert_whole(tmp_path / "out")


def test_killed_copy_goes_on(shop: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """After SIGKILL the same command goes on from the last checkpoint, and leaves one whole output."""
    command = ("copy", shop, f"file://{tmp_path}/out", "--max-records-per-batch", "500", "--rate", "2000")
    process = start(*command, environment=environment)
    with process:
        wait_for(process, "records/s")
        process.kill()
        process.communicate(timeout=30)
    listed = run("checkpoints", "list", environment=environment)
    assert "running" in listed.stdout
    done = run(*command, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "resumes after" in done.stderr
    assert_whole(tmp_path / "out")
    assert "completed" in run("checkpoints", "list", environment=environment).stdout


@pytest.mark.fault("sigterm", at="file")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_copy_says_how_to_go_on(
    shop: str, tmp_path: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    """Ctrl-C or SIGTERM stops at the boundary with exit code 4; the command that is printed goes on."""
    process = start(
        *("copy", shop, f"file://{tmp_path}/my out", "--max-records-per-batch", "500", "--rate", "1500"),
        *("--restart", "--no-progress"),
        environment=environment,
    )
    with process:
        wait_for(process, "records/s")
        process.send_signal(number)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 4
    assert "stopping at the next batch boundary" in rest
    assert "Traceback" not in rest
    said = shlex.split(rest.strip().splitlines()[-1].partition("to go on: ")[2])
    assert said[:2] == ["batchkit", "copy"]
    assert "--restart" not in said
    done = run(*said[1:], environment=environment)
    assert done.returncode == 0, done.stderr
    assert "resumes after" in done.stderr
    assert_whole(tmp_path / "my out")


def test_restart_begins_anew(shop: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """With --restart, an unfinished run is not resumed, its target not waited for, nothing is left over."""
    command = ("copy", shop, f"file://{tmp_path}/out", "--max-records-per-batch", "500")
    process = start(*command, "--rate", "1500", environment=environment)
    with process:
        wait_for(process, "records/s")
        process.kill()
        process.communicate(timeout=30)
    done = run(*command, "--restart", environment=environment)
    assert done.returncode == 0, done.stderr
    assert "resumes after" not in done.stderr
    assert_whole(tmp_path / "out")


def test_local_mode_writes_nothing(shop: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """--local reads everything and makes no output."""
    done = run("copy", shop, f"file://{tmp_path}/out", "--local", environment=environment)
    assert done.returncode == 0, done.stderr
    assert "write of record '1' skipped because we are in LOCAL mode" in done.stderr
    assert not (tmp_path / "out").exists()


def test_second_copy_at_the_same_time_is_refused(
    shop: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """While one process copies, the same command elsewhere is refused in one line, and disturbs nothing."""
    command = ("copy", shop, f"file://{tmp_path}/out", "--max-records-per-batch", "500")
    process = start(*command, "--rate", "3000", environment=environment)
    with process:
        wait_for(process, "records/s")
        second = run(*command, environment=environment)
        process.communicate(timeout=60)
    assert second.returncode == 1
    assert len(second.stderr.splitlines()) == 1
    assert "another batchkit process" in second.stderr
    assert process.returncode == 0
    assert_whole(tmp_path / "out")


def test_exceeded_budget_is_told_by_its_exit_code(
    shop: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """A run that failed on its error budget fails again with exit code 3 until the budget is raised."""
    file = tmp_path / "orders.checkpoint"
    failed = Checkpoint(
        run="r1",
        token="0" * 16,
        generation="abcd1234",
        started_at=time.time(),
        saved_at=time.time(),
        status="failed",
        counts=Counts(read=100, dead_lettered_by_transform=2),
        budget=Budget(exceeded="2 dead letters, 1 allowed (max_dead_letters)"),
    )
    file.write_text(encode(failed))
    command = ("copy", shop, f"file://{tmp_path}/out", "--checkpoint", str(file))
    done = run(*command, environment=environment)
    assert done.returncode == 3
    assert done.stderr == (
        "batchkit: error budget exceeded: 2 dead letters, 1 allowed (max_dead_letters); "
        "go on with a larger error budget, or begin anew with --restart\n"
    )
    assert run(*command, "--restart", environment=environment).returncode == 0


def test_moving_line_leaves_a_clean_terminal(shop: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """On a terminal the progress moves in one line; the cursor is shown again, also after Ctrl-C."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [
            *BATCHKIT,
            "copy",
            shop,
            f"file://{tmp_path}/out",
            "--max-records-per-batch",
            "500",
            "--rate",
            "1500",
        ],
        env={**environment, "TERM": "xterm", "COLUMNS": "140"},
        stdin=end,
        stdout=end,
        stderr=end,
    )
    os.close(end)
    shown, interrupted = "", False
    try:
        for text in _shown(terminal):
            shown += text
            # Once: a second Ctrl-C does not wait for the boundary.
            if "copying" in text and not interrupted:
                process.send_signal(signal.SIGINT)
                interrupted = True
    finally:
        os.close(terminal)
    assert process.wait(timeout=30) == 4
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "INFO" not in shown
    assert "to go on: batchkit copy" in shown


def _shown(terminal: int) -> Iterator[str]:
    while True:
        try:
            text = os.read(terminal, 65_536)
        except OSError:  # Linux reports the other end's closing so
            return
        if not text:
            return
        yield text.decode(errors="replace")


@pytest.mark.elasticsearch
@pytest.mark.s3
def test_copy_of_an_index_to_a_bucket(
    elasticsearch_server: ElasticsearchEndpoint, s3_server: S3Server, bucket: str, environment: dict[str, str]
) -> None:
    """Documents go from a real Elasticsearch to a bucket; credentials come from the environment."""
    index = f"cli-{bucket}"
    lines = "".join(
        f'{{"index": {{"_index": "{index}", "_id": "{n}"}}}}\n{{"n": {n}, "big": 12345678901234567890}}\n'
        for n in range(1000)
    )
    mappings = {"dynamic": False, "properties": {"n": {"type": "long"}}}
    elasticsearch_server.request("PUT", f"/{index}", {"mappings": mappings})
    elasticsearch_server.request("POST", "/_bulk?refresh=true", lines.encode())
    done = run(
        *("copy", f"elasticsearch+{elasticsearch_server.url}/{index}", f"s3://{bucket}/out"),
        *("--query", '{"range": {"n": {"gte": 100}}}', "--no-progress"),
        environment={**environment, **s3_server.environment()},
    )
    assert done.returncode == 0, done.stderr
    with s3_server.client() as client:
        manifest = json.load(client.get_object(Bucket=bucket, Key="out/manifest.json")["Body"])
        texts = [
            gzip.decompress(client.get_object(Bucket=bucket, Key=f"out/{part['key']}")["Body"].read())
            for part in manifest["parts"]
        ]
    records = [line for text in texts for line in text.splitlines()]
    assert len(records) == 900
    assert all(b'"big": 12345678901234567890' in record for record in records)
    unknown = run(
        *("copy", f"elasticsearch+{elasticsearch_server.url}/no-such-index", f"s3://{bucket}/none"),
        environment={**environment, **s3_server.environment()},
    )
    assert unknown.returncode == 2
    assert "no-such-index" in unknown.stderr.splitlines()[-1]
    assert "Traceback" not in unknown.stderr
