"""Connections for tests give what the test made, and refuse the rest in one line."""

from __future__ import annotations

import pytest

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.engine.policies import Timeouts
from airflow_batchkit.testing.doubles import FakeConnections, NoConnections


def test_no_connection_is_known() -> None:
    """A source that asks for a connection where there is none gets a clear answer."""
    with pytest.raises(UsageError, match=r"connection 'shop' \(sql\) is not known"):
        NoConnections().client("sql", "shop", timeouts=Timeouts())


def test_each_client_is_a_new_one() -> None:
    """A function makes a client at each call, as a real resolver does, and the calls are noted."""
    connections = FakeConnections({"shop": object})
    first, second = (connections.client("sql", "shop", timeouts=Timeouts()) for _ in range(2))
    assert first is not second
    assert connections.made == [("sql", "shop"), ("sql", "shop")]
    with pytest.raises(UsageError, match=r"'lake' \(s3\) is not known; the test gave \['shop'\]"):
        connections.client("s3", "lake", timeouts=Timeouts())
