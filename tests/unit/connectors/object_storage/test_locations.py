"""Places are what their URL says, and nothing leaves them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from airflow_batchkit.connectors.object_storage.locations import (
    Location,
    check_key,
    parse_location,
    segment,
)
from airflow_batchkit.engine.exceptions import UsageError


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("s3://lake/orders", Location(scheme="s3", bucket="lake", prefix="orders")),
        (
            "S3://lake/orders/ds=2026-01-01/",
            Location(scheme="s3", bucket="lake", prefix="orders/ds=2026-01-01"),
        ),
        ("s3://lake/a b#c?d%20", Location(scheme="s3", bucket="lake", prefix="a b#c?d%20")),
        ("file:///data/out", Location(scheme="file", bucket="", prefix="/data/out")),
        ("file://localhost/data/a%20b/", Location(scheme="file", bucket="", prefix="/data/a b")),
    ],
)
def test_urls(url: str, location: Location) -> None:
    """Buckets take the prefix as it is written, folders are decoded as file URLs are."""
    assert parse_location(url) == location


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("lake/orders", "write s3://bucket/prefix or file:///path"),
        ("gs://lake/orders", "write s3://bucket/prefix or file:///path"),
        ("s3://lake", "names no prefix"),
        ("s3://lake/", "rendered empty"),
        ("s3:///orders", "no bucket name"),
        ("s3://la ke/orders", "no bucket name"),
        ("s3://lake/orders//x", "segment that is empty"),
        ("s3://lake/../other", "segment that is empty, '.' or '..'"),
        ("s3://lake/orders/./x", "segment that is empty, '.' or '..'"),
        ("s3://lake/orders/ds=", "rendered empty"),
        ("s3://lake/orders/ds=/hour=1", "without a value"),
        ("s3://lake/or\nders", "control character"),
        ("s3://lake/" + "x" * 1000, "longer than"),
        ("file://data/out", "three slashes"),
        ("file:///", "names no folder"),
        ("file:///a/%2e%2e/b", "segment that is empty"),
    ],
)
def test_bad_urls_are_refused_in_one_line(url: str, said: str) -> None:
    """What can only be a mistake is refused before any work, in one line that says what to write instead."""
    with pytest.raises(UsageError, match=re.escape(said)) as refused:
        parse_location(url)
    assert "\n" not in str(refused.value)


def test_secrets_in_a_url_are_refused_and_not_repeated() -> None:
    """A URL with a password is refused without showing it."""
    with pytest.raises(UsageError, match="connection") as refused:
        parse_location("s3://me:hunter2@lake/orders")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("key", ["", "a//b", "../x", "a/..", "./a", "a\x00b", "/a", "a/", "x" * 1025])
def test_unsafe_keys_are_refused(key: str) -> None:
    """No name made from data can leave its prefix, or be more than S3 takes."""
    with pytest.raises(UsageError):
        check_key(key)


@given(st.text())
def test_any_text_becomes_a_safe_segment(text: str) -> None:
    """Whatever a job is called, its folder is one folder, inside the prefix, that a disk can have."""
    made = segment(text)
    assert "/" not in made
    assert check_key(f"{made}/x")
    assert len(made) < 200
    assert Path("/root", made).resolve().parent == Path("/root")


def test_different_long_texts_stay_different() -> None:
    """A name that is cut is told apart by its sum."""
    assert segment("x" * 500) != segment("x" * 501)
    assert segment("dag.task-1_a") == "dag.task-1_a"
