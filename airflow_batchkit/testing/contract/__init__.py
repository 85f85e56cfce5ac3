"""Contract suites (they need pytest): inherit one in a test class, and say what it shall run on.

A suite is the specification of its protocol: what passes it works with the engine. To see the values
in failed assertions, let ``conftest.py`` call
``pytest.register_assert_rewrite("airflow_batchkit.testing.contract")``.
"""

from __future__ import annotations

from airflow_batchkit.testing.contract.sink import OwnedTargetContract, SinkContract, StagedOutputContract
from airflow_batchkit.testing.contract.source import SourceContract
from airflow_batchkit.testing.contract.store import ConditionalStoreContract, StoreContract

__all__ = [
    "ConditionalStoreContract",
    "OwnedTargetContract",
    "SinkContract",
    "SourceContract",
    "StagedOutputContract",
    "StoreContract",
]
