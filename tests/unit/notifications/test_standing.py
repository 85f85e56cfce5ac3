"""Where a job stands."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from typing_extensions import override

from airflow_batchkit.notifications.standing import Standing, standing_of_task

PROGRESS = {"line": "batch 2/5 · 20/50 records (40%)", "cursor": "2026-03-01", "read": 20}


class Store(dict[str, Any]):
    """A task state store that counts its readers."""

    reads = 0

    @override
    def get(self, key: str, default: Any = None) -> Any:
        """Read."""
        self.reads += 1
        return super().get(key, default)


class Instance(SimpleNamespace):
    """A task instance with XComs."""

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int) -> Any:
        """Read an XCom."""
        return self.xcoms.get((task_ids, key, map_indexes))


def instance(**xcoms: Any) -> Instance:
    """Make a task instance with these XComs of its own."""
    return Instance(task_id="t", map_index=-1, xcoms={("t", key, -1): value for key, value in xcoms.items()})


def test_the_worker_reads_the_state_store() -> None:
    """In the task's process the progress comes from the store."""
    context = {"task_state_store": Store(progress=PROGRESS), "exception": ValueError(), "ti": instance()}

    assert standing_of_task(context) == Standing(line=PROGRESS["line"], cursor="2026-03-01")  # type: ignore[arg-type]  # a text


def test_the_dag_processor_reads_the_xcom() -> None:
    """Without an exception we are in the dag-processor, where the store cannot be asked."""
    store = Store(progress=PROGRESS)
    context = {"task_state_store": store, "ti": instance(batchkit_progress=PROGRESS)}

    standing = standing_of_task(context)

    assert standing is not None
    assert standing.line == PROGRESS["line"]
    assert store.reads == 0


def test_after_a_timeout_nothing_is_asked() -> None:
    """A timeout may have cut a call to Airflow: its later answers belong to other questions."""
    from airflow.sdk.exceptions import AirflowTaskTimeout

    store = Store(progress=PROGRESS)

    assert standing_of_task({"task_state_store": store, "exception": AirflowTaskTimeout()}) is None
    assert store.reads == 0


def test_a_store_that_fails_does_not_cost_the_alert() -> None:
    """When the progress cannot be read there is no standing, and no error."""

    class Broken(dict[str, Any]):
        @override
        def get(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("404: the task instance is gone")

    assert standing_of_task({"task_state_store": Broken(), "exception": ValueError()}) is None


def test_a_task_of_another_kind_has_no_standing() -> None:
    """A task that is none of ours, or had no progress yet, is told without."""
    for stored in (None, {}, "text", {"cursor": "x"}):
        assert (
            standing_of_task({"exception": ValueError(), "task_state_store": Store(progress=stored)}) is None
        )
