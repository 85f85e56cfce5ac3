"""Those who look on: logs, progress bars, XCom. They are told; they cannot change what happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_batchkit.engine.checkpoint import Checkpoint
    from airflow_batchkit.engine.dead_letters import DeadLetter
    from airflow_batchkit.engine.progress import Progress
    from airflow_batchkit.engine.report import Report


class Listener:
    """Override what you want to hear; each method is called in the main thread and does nothing by default.

    What a listener raises is logged and otherwise ignored, once per listener.
    """

    def on_start(self, facts: Mapping[str, Any]) -> None:
        """Hear that a leg begins: settings, environment, source, sink, what is resumed."""

    def on_progress(self, progress: Progress) -> None:
        """Hear that a window was committed."""

    def on_saved(self, checkpoint: Checkpoint) -> None:
        """Hear that the checkpoint was saved; do not keep or change it."""

    def on_waiting(self, reason: str, seconds: float) -> None:
        """Hear that the run waits, before it does."""

    def on_retry(self, what: str, error: BaseException, tries: int, wait: float) -> None:
        """Hear that a call failed and is made again."""

    def on_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Hear that some records were given up and kept (or, without a place for them, only given up)."""

    def on_budget_warning(self, used: float, dead_lettered: int) -> None:
        """Hear that half, or four fifths, of the error budget is used; each once per budget period.

        :param used: which part, from 0.5.
        :param dead_lettered: records given up in this period.
        """

    def on_publishing(self) -> None:
        """Hear that everything is written and publishing begins, which may take a while."""

    def on_finish(self, report: Report) -> None:
        """Hear that the run is complete."""

    def on_failure(self, error: BaseException) -> None:
        """Hear that the leg ends without the run being complete."""
