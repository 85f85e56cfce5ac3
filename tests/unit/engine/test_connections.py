"""The seam through which clients are made."""

from __future__ import annotations

import inspect

import pytest

from airflow_batchkit.engine.connections import Connections
from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.testing.doubles import FakeConnections, NoConnections


@pytest.mark.parametrize("double", [NoConnections, FakeConnections])
def test_the_doubles_have_the_shape_of_the_seam(double: type[Connections]) -> None:
    """So that what works with a double works with Airflow's connections."""
    assert list(inspect.signature(double.client).parameters) == list(
        inspect.signature(Connections.client).parameters
    )


def test_no_connection_is_a_usage_error() -> None:
    """Named, with its kind."""
    with pytest.raises(UsageError, match="'orders_db' \\(sql\\)"):
        NoConnections().client("sql", "orders_db", timeouts=Timeouts())
