"""Random jobs under random faults, against a model: after enough legs the output is what the model says.

A scenario is drawn whole and then played. A rule-based state machine would draw the same steps one by one;
but here no step depends on what came before (a fault that never strikes is one fault less), and a scenario
shrinks better and is printed in one piece. A store that answers with what it held before is not among the
faults: no store of the package does, and its contract forbids it.
"""

from __future__ import annotations

import os
import threading
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings

from airflow_batchkit.engine.exceptions import (
    ErrorBudgetExceededError,
    PermanentError,
    StoppedError,
    SupersededError,
    TransientError,
)
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.stop import Stop
from tests.support.engine_scenarios import SCENARIOS, Frost, Scenario, is_drawn, world_of
from tests.support.fault_table import FULL
from tests.support.legs import Death, KilledError, at

EXAMPLES = int(os.environ.get("BATCHKIT_MODEL_EXAMPLES", "5000" if FULL else "100"))
LEGS = 60
ENDS = (KilledError, StoppedError, SupersededError, TransientError, ErrorBudgetExceededError)


class Zombie:
    """A leg that freezes in one of its writes and thaws later."""

    def __init__(self, play: Play, frost: Frost) -> None:
        self.legs = frost.legs
        self._ended: BaseException | None = None
        self._play = play
        self._block = play.world.target.script.block(
            "write", at=play.world.target.script.calls("write") + frost.write
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        while self._thread.is_alive() and not self._block.wait_until_reached(0.01):
            pass
        if not self._thread.is_alive():
            self._block.release()  # it ended before it came there: no other leg shall freeze in its place

    def _run(self) -> None:
        try:
            self._play.world.run(self._play.job, max_stuck_legs=LEGS)
        except ENDS:
            pass
        except BaseException as error:  # noqa: BLE001  # looked at when the leg is thawed
            self._ended = error

    def thaw(self) -> None:
        """Let it go on, and wait until it ended, in a way that the scenario explains."""
        self._block.release()
        self._thread.join(20)
        assert not self._thread.is_alive()
        assert self._ended is None or is_drawn(self._ended), self._ended


class Play:
    """A scenario being played.

    :param scenario: what happens.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.world = world_of(scenario)
        self.job = self.world.job(dead_letters=self.world.letters)
        self._endings = iter(scenario.endings)
        self._clears = {clear.legs: clear.restarts for clear in scenario.clears}
        self._clear_marker = ""
        self._when_cleared = "resume"

    def one_leg(self, number: int) -> bool:
        """Run one leg, ended from outside or not; tell whether the run is over."""
        if number in self._clears:
            self._clear(restarts=self._clears[number])
        ending = next(self._endings, None)
        stop = Stop()
        death = Death(ending.at if ending is not None and ending.way == "killed" else 0)

        def probe(name: str, when: Literal["before", "after"]) -> None:
            death(name, when)
            if ending is not None and ending.way == "stopped" and len(death.moments) == ending.at:
                stop.ask("the scenario says so")

        identity = at(self._clear_marker, when_cleared=self._when_cleared)
        try:
            with probing(probe):
                self.world.run(self.job, identity=identity, stop=stop, max_stuck_legs=LEGS)
        except KilledError:
            death.bury()
        except ErrorBudgetExceededError:
            self._clear(restarts=False)
        except (StoppedError, TransientError, SupersededError):
            # Superseded where a frozen leg's main thread was between its look at the checkpoint and its save:
            # the store has no compare-and-set. Both legs stop then, and the next goes on from what was saved.
            pass
        except PermanentError as error:
            if not is_drawn(error):
                raise
        else:
            return True
        return False

    def _clear(self, *, restarts: bool) -> None:
        self._clear_marker += "c"
        self._when_cleared = "restart" if restarts else "resume"


def _wait_for_threads() -> None:
    """Readers and writers of ended legs end soon; else they would run on in the next example."""
    for thread in threading.enumerate():
        if thread.name.startswith("batchkit-"):
            thread.join(10)
            assert not thread.is_alive(), f"{thread.name} runs on after its leg"


@pytest.mark.fault("sigkill", at="engine")
@pytest.mark.fault("sigterm", at="engine")
@pytest.mark.fault("answer-lost", at="engine")
@pytest.mark.fault("pushback", at="engine")
@pytest.mark.fault("server-error", at="engine")
@pytest.mark.fault("poison", at="engine")
@pytest.mark.fault("letters-refused", at="engine")
@pytest.mark.fault("store-away", at="engine")
@pytest.mark.fault("zombie", at="engine")
@pytest.mark.fault("clock", at="engine")
@pytest.mark.timeout(7_200 if FULL else 300)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(scenario=SCENARIOS)
def test_whatever_happens_the_output_is_what_the_model_says(scenario: Scenario) -> None:
    """Failures, lost answers, kills, stops, clears, thawed legs in any order: nothing is lost or doubled."""
    play = Play(scenario)
    world = play.world
    zombies = [Zombie(play, frost) for frost in scenario.frosts]

    over = False
    for number in range(1, LEGS + 1):
        over = play.one_leg(number)
        for zombie in [zombie for zombie in zombies if over or zombie.legs == number]:
            zombies.remove(zombie)
            zombie.thaw()
        if over:
            break

    _wait_for_threads()
    published, dead = scenario.expected()
    assert over, f"not finished after {LEGS} legs"
    assert world.ids == published
    assert sorted(letter.id for letter in world.box.settled) == dead
    assert world.target.published is world.target.history[-1]
    assert len(world.target.history) == 1 or scenario.clears, "published twice"
    counts = world.stood.counts
    assert world.stood.status == "completed"
    assert counts.difference() is None
    assert counts.read == sum(scenario.partitions)
    assert counts.written == len(published)
    assert counts.dead_lettered == len(dead)
    assert world.target.published is not None
    assert world.target.published.counts["written"] == len(published)
    if not scenario.frosts:
        assert world.target.staged == {}
        assert world.box.staged == {}
