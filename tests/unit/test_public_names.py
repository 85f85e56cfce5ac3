"""What users import, and what an import costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import airflow_batchkit

HEAVY = ("airflow", "boto3", "elasticsearch", "slack_sdk", "sqlalchemy", "msgspec")


@pytest.mark.parametrize("name", airflow_batchkit.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """Each name resolves, and is the object that bears it."""
    found = getattr(airflow_batchkit, name)

    assert getattr(found, "__name__", "__version__") == name
    assert name in dir(airflow_batchkit)


def test_every_lazy_name_is_public() -> None:
    """No name can be had that the list does not show, and none is missing in it."""
    assert sorted({*airflow_batchkit._HOMES, "__version__"}) == sorted(airflow_batchkit.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A typing error is reported as for any module."""
    with pytest.raises(AttributeError, match="has no attribute 'BatchOperator'"):
        airflow_batchkit.BatchOperator  # noqa: B018  # looking it up is what fails


def test_the_import_is_light() -> None:
    """Importing the package loads neither Airflow nor a client library."""
    code = f"import sys, airflow_batchkit; print([name for name in {HEAVY!r} if name in sys.modules])"

    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert said.stdout.strip() == "[]"
