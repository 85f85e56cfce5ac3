"""The arithmetic of asking for less: halved at once, grown back in steps."""

from __future__ import annotations

from hypothesis import given, strategies as st

from airflow_batchkit.engine.shrinking import Share


def test_each_pushback_halves_what_was_refused() -> None:
    """Down to one record at last; several refusals of one size, as of two writers, halve it once."""
    share = Share()
    assert share.of(100) == 100
    for refused, left in [(1.0, 50), (1.0, 50), (0.5, 25), (0.1, 5), (0.01, 1)]:
        share.pushed_back(refused)
        assert share.of(100) == left
    for _ in range(20):
        share.pushed_back(share.value)
    assert share.of(100) == share.of(1) == 1


def test_success_grows_it_back_in_equal_steps_up_to_the_whole() -> None:
    """Sixteen successes undo any number of pushbacks, and nothing grows beyond the whole."""
    share = Share()
    share.pushed_back(1.0)
    sizes = []
    for _ in range(10):
        share.succeeded()
        sizes.append(share.of(160))
    assert sizes == [90, 100, 110, 120, 130, 140, 150, 160, 160, 160]


@given(
    whole=st.integers(min_value=1, max_value=10**7),
    least=st.integers(min_value=1, max_value=10**5),
    events=st.lists(st.booleans(), max_size=40),
)
def test_a_share_is_never_nothing_and_never_more_than_the_whole(
    whole: int, least: int, events: list[bool]
) -> None:
    """Whatever happened: at least the floor, where the whole is as large, and at most the whole."""
    share = Share()
    for success in events:
        if success:
            share.succeeded()
        else:
            share.pushed_back(share.value)
        assert min(whole, least) <= share.of(whole, least=least) <= whole
