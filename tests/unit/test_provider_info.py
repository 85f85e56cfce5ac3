"""Airflow finds the provider, what it offers, and its section of the configuration."""

from __future__ import annotations

import json
from importlib.metadata import entry_points, metadata
from importlib.resources import files
from typing import Any

import pytest

from airflow_batchkit.provider_info import SECTION, get_provider_info

INFO = get_provider_info()


@pytest.fixture(scope="module")
def manager() -> Any:
    """Give Airflow's list of what is installed."""
    from airflow.providers_manager import ProvidersManager

    found = ProvidersManager()  # type: ignore[no-untyped-call]  # Airflow's own
    found.initialize_providers_list()
    return found


def test_airflow_accepts_it() -> None:
    """The dict passes the schema by which Airflow checks providers."""
    import jsonschema  # type: ignore[import-untyped]  # comes with Airflow, without stubs

    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


def test_entry_point_names_it() -> None:
    """The installed distribution points at this function, under the name that it gives itself."""
    (found,) = [
        entry
        for entry in entry_points(group="apache_airflow_provider")
        if entry.dist is not None and entry.dist.name == "airflow-batchkit"
    ]
    assert found.load()() == INFO
    assert INFO["package-name"] == metadata("airflow-batchkit")["Name"]


def test_airflow_lists_it(manager: Any) -> None:
    """``airflow providers list`` shows the provider with its notifiers."""
    assert "airflow-batchkit" in manager.providers
    assert set(INFO["notifications"]) <= set(manager.notification)


@pytest.mark.parametrize("option", INFO["config"][SECTION]["options"])
def test_options_have_a_default_that_airflow_gives(option: str) -> None:
    """Every option is described, and its default is what ``conf`` returns where nobody set it."""
    from airflow.providers.common.compat.sdk import conf

    described = INFO["config"][SECTION]["options"][option]
    assert set(described) == {"description", "version_added", "type", "example", "default"}
    assert all(isinstance(value, str) for value in described.values())
    assert conf.get(SECTION, option) == described["default"]


def _modules() -> list[str]:
    listed = [
        name for kind in ("operators", "hooks") for entry in INFO[kind] for name in entry["python-modules"]
    ]
    return [*listed, *(entry["python-module"] for entry in INFO["transfers"])]


@pytest.mark.parametrize("module", _modules())
def test_modules_are_there(module: str) -> None:
    """What the documentation of the provider links to can be imported."""
    __import__(module)


def test_integrations_are_known(manager: Any) -> None:
    """Each integration that is named is declared by a provider that is installed."""
    declared = {
        integration["integration-name"]
        for provider in manager.providers.values()
        for integration in provider.data.get("integrations", [])
    }
    named = {entry["integration-name"] for kind in ("operators", "hooks") for entry in INFO[kind]}
    named |= {entry[f"{end}-integration-name"] for entry in INFO["transfers"] for end in ("source", "target")}
    assert named <= declared
