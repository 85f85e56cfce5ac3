"""The operator, run leg after leg for one task of the tests' database, in this process."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry
from airflow_batchkit.operators.pipeline import BatchPipelineOperator
from airflow_batchkit.testing.doubles import MemorySink, MemorySource, MemoryTarget, ReadLog, made_up_records

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk.exceptions import AirflowRescheduleException

    from airflow_batchkit.engine.types import Record

RECORDS = 100
ALL = [str(number) for number in range(1, RECORDS + 1)]


class Bench:
    """One task, run leg after leg: the source and the target remember, the operator is made anew."""

    def __init__(self, context: dict[str, Any]) -> None:
        self.context = context
        self.log = ReadLog()
        self.target = MemoryTarget()
        self.source = MemorySource(partitions={"orders": made_up_records(RECORDS)}, log=self.log)

    def operator(self, **arguments: Any) -> BatchPipelineOperator:
        """Make the operator, with small batches and no patience."""
        settings: dict[str, Any] = {
            "task_id": "export",
            "source": self.source,
            "sink": MemorySink(target=self.target),
            "batch": BatchPolicy(max_records=10),
            "batch_retry": BatchRetry(max_tries=1),
        }
        return BatchPipelineOperator(**(settings | arguments))

    def leg(self, **arguments: Any) -> dict[str, Any]:
        """Run one leg of the run."""
        return self.operator(**arguments).execute(self.context)  # type: ignore[arg-type]  # not a whole context

    def at_page(self, number: int, action: Callable[[], object]) -> None:
        """Do something when the source delivers a page of ten records, in its reader's thread."""

        def act_and_deliver(records: list[Record]) -> list[Record]:
            action()
            return records

        self.log.change_page("orders", number, act_and_deliver)

    def clear(self) -> None:
        """Do to the task instance what a clear in the UI does."""
        task = self.context["ti"]
        self.context["ti"] = dataclasses.replace(task, max_tries=task.max_tries + 1)

    @property
    def published(self) -> list[str]:
        """Ids of the records that a reader sees."""
        return self.target.published.ids if self.target.published else []


def seconds_away(reschedule: AirflowRescheduleException) -> float:
    """Return how far in the future the next leg is."""
    return float((reschedule.reschedule_date - datetime.now(tz=UTC)).total_seconds())
