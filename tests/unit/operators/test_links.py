"""Where the buttons of a task lead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_batchkit.operators.links import (
    DeadLettersLink,
    LinkListener,
    ManifestLink,
    OutputLink,
    browsable,
)
from airflow_batchkit.provider_info import default_of

CONSOLE = "https://minio.example/browser/{bucket}/{key}"


@pytest.mark.parametrize(
    ("url", "console", "opened"),
    [
        ("s3://lake/orders/ds=1", CONSOLE, "https://minio.example/browser/lake/orders/ds%3D1/"),
        (
            "s3://lake/orders/manifest.json",
            CONSOLE,
            "https://minio.example/browser/lake/orders/manifest.json",
        ),
        ("s3://lake/a b&c", CONSOLE, "https://minio.example/browser/lake/a%20b%26c/"),
        (
            "s3://lake/orders",
            default_of("s3_console_url"),
            "https://s3.console.aws.amazon.com/s3/buckets/lake?prefix=orders/",
        ),
        ("s3://lake/orders", "", "s3://lake/orders"),
        ("file:///data/orders", CONSOLE, "file:///data/orders"),
    ],
)
def test_an_s3_url_becomes_a_page_of_the_console(url: str, console: str, opened: str) -> None:
    """What comes from data cannot change where the link leads."""
    assert browsable(url, console) == opened


@pytest.mark.parametrize(
    ("sink", "letters", "shown"),
    [
        (
            {"location": "s3://lake/orders", "format": "ndjson"},
            "s3://lake/letters",
            {OutputLink.name, ManifestLink.name, DeadLettersLink.name},
        ),
        ({"location": "s3://lake/orders"}, None, {OutputLink.name}),
        ({"location": "billing.charge()"}, "elasticsearch+https://es/letters (a run)", set()),
        ({}, None, set()),
    ],
)
def test_only_places_that_can_be_opened_get_a_button(
    sink: dict[str, str], letters: str | None, shown: set[str]
) -> None:
    """A function that is called, an index or a table gets none, instead of one that leads nowhere."""
    operator, pushed = SimpleNamespace(), dict[str, Any]()
    task = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
    airflow = SimpleNamespace(post=lambda _what, call, *arguments: call(*arguments))
    listener = LinkListener(
        operator,  # type: ignore[arg-type]  # all that is asked of it is that it keeps an attribute
        {"ti": task},
        airflow=airflow,  # type: ignore[arg-type]  # makes the calls at once
        letters=letters,
        console=CONSOLE,
    )
    listener.on_start({"sink": sink})
    links = (OutputLink(), ManifestLink(), DeadLettersLink())
    assert {link.name for link in links if link.xcom_key in pushed} == shown
    assert {link.name for link in links if link.get_link(operator, ti_key=None)} == shown  # type: ignore[arg-type]  # not asked
