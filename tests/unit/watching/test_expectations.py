"""What is expected of which DAGs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_batchkit.engine.exceptions import UsageError
from airflow_batchkit.watching import Limits, Watched


def meant(**settings: Any) -> list[str]:
    """Return which of four DAGs are meant."""
    dags = {
        "export_orders": (["nightly"], ["data"]),
        "export_items": (["hourly"], ["data", "shop"]),
        "purge": (["nightly"], ["ops"]),
        "Export_old": ([], []),
    }
    watched = Watched(**settings)
    return [name for name, (tags, owners) in dags.items() if watched.means(name, tags=tags, owners=owners)]


def test_dags_are_chosen_by_id_pattern_tag_and_owner() -> None:
    """Each kind of condition narrows the choice; within one kind, one of the values is enough."""
    assert meant(dags=["export_*"]) == ["export_orders", "export_items"]
    assert meant(dags=["purge", "export_orders"]) == ["export_orders", "purge"]
    assert meant(tags=["nightly", "weekly"]) == ["export_orders", "purge"]
    assert meant(owners=["shop"]) == ["export_items"]
    assert meant(tags=["nightly"], owners=["data"]) == ["export_orders"]
    assert len(meant()) == 4


def test_an_id_has_to_exist_and_a_pattern_has_not() -> None:
    """Only what is written without wildcards names a DAG."""
    assert Watched(dags=["orders", "export_*", "a?", "[ab]"]).ids == ["orders"]


def test_maintenance_is_any_of_the_windows() -> None:
    """The instant is compared with all windows."""
    watched = Watched(maintenance=["Sun 02:00-04:00 UTC", "2026-01-14 10:00-11:00 UTC"])

    assert watched.in_maintenance(datetime(2026, 1, 14, 10, 30, tzinfo=UTC))
    assert watched.in_maintenance(datetime(2026, 1, 18, 3, tzinfo=UTC))
    assert not watched.in_maintenance(datetime(2026, 1, 15, 10, 30, tzinfo=UTC))


@pytest.mark.parametrize("wrong", [timedelta(0), timedelta(hours=-1), 26, "26h"])
def test_a_limit_is_a_time_above_zero(wrong: Any) -> None:
    """Everything else is refused when it is written."""
    with pytest.raises(UsageError, match=r"max_age=.*must be a timedelta above zero"):
        Limits(max_age=wrong)


def test_one_text_is_no_list() -> None:
    """A text would be taken letter by letter."""
    with pytest.raises(UsageError, match=r"must be a list, \['nightly'\]"):
        Watched(tags="nightly")


def test_it_reads_the_same_in_every_process() -> None:
    """The text of the settings holds no address of an object and no window read from them."""
    watched = Watched(dags=["a"], maintenance=["02:00-03:00 UTC"], limits=Limits(max_age=timedelta(hours=26)))

    assert repr(watched) == (
        "Watched(dags=['a'], tags=[], owners=[], limits={'grace': 900.0, 'max_queued': 1800.0, "
        "'max_age': 93600.0, 'max_running': None}, allow_paused=False, maintenance=['02:00-03:00 UTC'])"
    )
