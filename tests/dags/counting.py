"""A DAG that counts slowly in its state store, for tests of the test harness itself."""

from __future__ import annotations

import time
from typing import Any

from airflow.sdk import DAG, BaseOperator  # noqa: TID253 - this file is parsed by Airflow only
from typing_extensions import override


class CountingOperator(BaseOperator):
    """Counts to a number, two a second, and goes on where an earlier try stopped."""

    @override
    def execute(self, context: Any) -> int:
        """Count to ``dag_run.conf["until"]``."""
        store = context["task_state_store"]
        until = (context["dag_run"].conf or {}).get("until", 1)
        count = int(store.get("count", default=0))
        while count < until:
            time.sleep(0.5)
            count += 1
            store.set("count", count)
        return count

    @override
    def on_kill(self) -> None:
        """Leave a trace."""
        self.log.info("asked to stop")


with DAG("counting", schedule=None) as dag:
    CountingOperator(task_id="count", retries=1, retry_delay=1)
