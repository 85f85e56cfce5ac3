"""What indices may be called, and how names become paths."""

from __future__ import annotations

import pytest

from airflow_batchkit.connectors.elasticsearch.members import (
    MAX_NAMES_BYTES,
    Names,
    check_expression,
    paths,
)
from airflow_batchkit.engine.exceptions import UsageError


@pytest.mark.parametrize(
    "name",
    ["", "*", "**", "_all", "-*", "a,b", "_orders", "+orders", "<orders-{now/d}>", "a b", "..", "a#b", "c:d"],
)
def test_what_no_index_can_be_called_is_refused(name: str) -> None:
    """Everything at once, several names in one text, date math, other clusters and impossible names."""
    with pytest.raises(UsageError, match="index"):
        check_expression(name, first=False)


@pytest.mark.parametrize(
    "name",
    ["orders", "orders-2026.11", ".hidden", "bestellungen_ü", "a+b", "orders-*", "*-eu", "-orders-test"],
)
def test_names_and_patterns_pass(name: str) -> None:
    """What the server allows is allowed."""
    check_expression(name, first=False)


def test_an_exclusion_needs_something_before_it() -> None:
    """An exclusion at the beginning would exclude from nothing."""
    with pytest.raises(UsageError, match="excludes something from nothing"):
        check_expression("-orders", first=True)


def test_each_path_fits_a_request_line() -> None:
    """Names are put together as long as they fit, keep their order, and none is left out."""
    names = [f"index-{number:04d}-ü" for number in range(1000)]
    made = list(paths(names))
    assert all(len(path) <= MAX_NAMES_BYTES for path in made)
    assert len(made) > 1
    assert ",".join(made).replace("%C3%BC", "ü").split(",") == names


def test_an_exclusion_stays_with_what_it_excludes_from() -> None:
    """Names with an exclusion among them are one request, however long."""
    names = Names(expressions=(*(f"{'x' * 200}-{number}" for number in range(30)), "-y*"))
    assert len(list(names.paths())) == 1
