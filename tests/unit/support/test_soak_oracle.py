"""The soak's oracle notices what it is there for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_batchkit.engine.stop import Stop
from tests.support.object_storage import Place, S3Connections
from tests.support.published import Published
from tests.support.soak_jobs import SoakJob, draw
from tests.support.soak_legs import pipeline_of
from tests.support.soak_oracle import Oracle
from tests.support.soak_servers import Servers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

JOB = replace(
    draw(1, 1, sources=("sqlite",)),
    target="file",
    runs=(40,),
    transforms=True,
    changing=False,
    by_command=False,
    compression="gzip",
    rate=None,
)


class Soaked:
    """A job that is done, to tamper with."""

    def __init__(self, folder: Path) -> None:
        self.servers = Servers(folder=str(folder), elasticsearch_url="", s3={})
        self.servers.job_folder(JOB).mkdir()
        self.servers.fill(JOB, 0)
        pipeline_of(JOB, 0, self.servers, Stop()).run()
        self.target = folder / JOB.name / "target"
        self.published = Published(
            Place(url=f"file://{self.target}/data", connections=S3Connections(endpoint_url=""))
        )

    def compared(self, *thawed: str, job: SoakJob = JOB) -> dict[str, Any]:
        """Ask the oracle."""
        tokens = frozenset(thawed)
        return Oracle(job, self.servers, thawed=tokens, ever_thawed=tokens).compare(0)

    def rewrite(self, change: Callable[[list[bytes]], list[bytes]]) -> None:
        """Change the lines of the first part, so that the manifest fits."""
        self.published.rewrite(self.published.first, change)

    def late(self) -> None:
        """Let a leg put a batch into its staging when the run is over."""
        self.published.place.store().put("_batchkit/run-0/late/part-00000-0000001.ndjson.gz", b"late")

    def wrong_letter(self) -> None:
        """Change the bytes of a record that was given up."""
        letters = next(self.target.glob("letters/*/run-0/letters-*"))
        letters.write_bytes(letters.read_bytes().replace(b'"record":{"number":4,', b'"record":{"number":5,'))


@pytest.fixture
def soaked(tmp_path: Path) -> Soaked:
    """Do a job."""
    return Soaked(tmp_path)


def test_what_is_right_is_right(soaked: Soaked) -> None:
    """No difference, and everything was compared."""
    found = soaked.compared()
    assert found["differences"] == []
    expected = JOB.expected(0)
    assert (found["records"], found["letters"]) == (len(expected.lines), len(expected.letters))


@pytest.mark.parametrize(
    ("tamper", "noticed"),
    [
        (lambda soaked: soaked.rewrite(lambda lines: lines[1:]), "1 less"),
        (lambda soaked: soaked.rewrite(lambda lines: [*lines, lines[0]]), "1 lines are there more than once"),
        (lambda soaked: soaked.rewrite(lambda lines: [lines[0][:-2] + b',"a":1}\n', *lines[1:]]), "1 more"),
        (lambda soaked: soaked.late(), "left in the staging: 1 more"),
        (lambda soaked: soaked.wrong_letter(), "dead letters: 1 more"),
        (lambda soaked: (soaked.target / "data/_SUCCESS").unlink(), "_SUCCESS is missing"),
        (lambda soaked: soaked.published.remove(soaked.published.first), "parts that lie there: 0 more"),
    ],
    ids=["lost", "doubled", "changed", "left over", "letter changed", "no success", "part gone"],
)
def test_what_is_wrong_is_noticed(soaked: Soaked, tamper: Callable[[Soaked], Any], noticed: str) -> None:
    """A record that is missing, doubled or changed; something left over; a dead letter with other bytes."""
    tamper(soaked)
    assert noticed in "\n".join(soaked.compared()["differences"])


def test_what_a_thawed_leg_sent_late_is_counted_apart(soaked: Soaked) -> None:
    """Under its own token, where nothing counts: no difference, but said."""
    soaked.late()
    found = soaked.compared("late")
    assert (found["differences"], found["late"]) == ([], 1)
