"""Tests that mostly wait, run side by side: each in a thread, all begun by the first that is due."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Scenario: TypeAlias = Callable[[Any], None]

AT_ONCE = 5
LONGEST_SECONDS = 500

_scenarios: dict[object, Scenario] = {}


class Outcomes:
    """What became of the scenarios that run side by side."""

    def __init__(self, running: dict[Scenario, Future[None]]) -> None:
        self._running = running

    def of(self, scenario: Scenario) -> None:
        """Wait for a scenario; what it raised is raised here."""
        self._running[scenario].result(timeout=LONGEST_SECONDS)


def together(scenario: Scenario) -> Callable[[Outcomes], None]:
    """Make a test of a scenario; the module's fixture ``outcomes`` runs it with others, see :func:`begun`."""

    def test(outcomes: Outcomes) -> None:
        outcomes.of(scenario)

    # Not functools.wraps: pytest follows __wrapped__, and would take the scenario's argument for a fixture.
    test.__name__ = test.__qualname__ = scenario.__name__
    test.__doc__ = scenario.__doc__
    test.__module__ = scenario.__module__
    _scenarios[test] = scenario
    return test


@contextmanager
def begun(request: pytest.FixtureRequest, argument: object) -> Iterator[Outcomes]:
    """
    Begin the scenarios of the module's tests, of those only that this test run was asked for.

    The ones that come first in the file begin first: that is the place for those that take long.

    :param request: of a fixture of the module
    :param argument: given to each scenario
    """
    asked_for = [
        _scenarios[item.function]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module and item.function in _scenarios
    ]
    in_order = sorted(asked_for, key=lambda scenario: scenario.__code__.co_firstlineno)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="scenario") as pool:
        try:
            yield Outcomes({scenario: pool.submit(scenario, argument) for scenario in in_order})
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
