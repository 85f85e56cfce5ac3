"""What all operators of this package share: one leg of a run, and how it ends."""

from __future__ import annotations

import logging
import platform
import socket
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException
from typing_extensions import override

from airflow_batchkit.engine.exceptions import BatchkitError, SupersededError, UsageError
from airflow_batchkit.engine.job import Job, Transform
from airflow_batchkit.engine.memory import settle_process
from airflow_batchkit.engine.pipeline import Pipeline
from airflow_batchkit.engine.policies import BatchPolicy, BatchRetry, ErrorBudget, RateLimit, Timeouts
from airflow_batchkit.engine.progress_log import LogListener
from airflow_batchkit.engine.stop import Stop
from airflow_batchkit.hooks.airflow_thread import AirflowThread
from airflow_batchkit.hooks.connections import AirflowConnections
from airflow_batchkit.hooks.switches import as_optional_text, as_switch
from airflow_batchkit.operators.identity import CHECKPOINT_KEY, run_identity
from airflow_batchkit.operators.links import LINKS, LinkListener
from airflow_batchkit.operators.metrics import MetricsListener
from airflow_batchkit.operators.mirror import AirflowMirror
from airflow_batchkit.operators.outcome import outcome
from airflow_batchkit.operators.outlets import note_outlets, withhold_outlets
from airflow_batchkit.operators.settings import SiteSettings, site_settings
from airflow_batchkit.operators.templating import TemplatedValuesOperator
from airflow_batchkit.stores.selection import store_for_task
from airflow_batchkit.stores.target import TARGET_KEY, TargetStore

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_batchkit.engine.dead_letters import DeadLetterPlace
    from airflow_batchkit.engine.sink import Sink
    from airflow_batchkit.engine.source import Source


log = logging.getLogger("airflow_batchkit")


class BatchkitOperator(TemplatedValuesOperator):
    """Runs a job in batches, resumes it after whatever ended it, and publishes its output once.

    Subclasses say what is read and where it goes: :meth:`source_value` and :meth:`sink_value`.

    :param transform: called with each document; None keeps the records' bytes as they are.
    :param batch: how large a batch may become. Default: what the sink thinks best.
    :param throttle: how fast to go. Default: no limit.
    :param error_budget: how many records may be given up. Default: none.
    :param dead_letters: where given-up records are kept (templated); needed as soon as the budget allows any.
    :param batch_retry: how often one batch is tried. Default: 6 times.
    :param timeouts: limits for everything that could wait; ``execution_timeout`` counts per leg,
        ``Timeouts.run`` for the whole run.
    :param readers: partitions read at the same time, 1 to 8. Default 2.
    :param checkpoint_store: ``"auto"`` (the task state store on Airflow 3.3 and newer, else Variables),
        ``"task_state"``, ``"variable"`` or ``"target"`` (beside the output, shared with the command line, and
        kept through a clear by every Airflow).
    :param when_cleared: what a clear of an unfinished run means: ``"resume"`` or ``"restart"``.
    :param restart: begin anew whatever is there (templated: ``"{{ params.restart }}"``).
    :param local: LOCAL mode, which writes nothing (templated).
    :param start_at: begin here instead of at the beginning, as the source understands it (templated); such a
        run over a part keeps its own checkpoint and never replaces a whole output.
    :param max_batches: end after this many batches; also a run over a part.
    :param plan_only: look at what would be done, return it, and write nothing.
    """

    template_fields: Collection[str] = (
        "batch",
        "throttle",
        "error_budget",
        "dead_letters",
        "batch_retry",
        "timeouts",
        "restart",
        "local",
        "start_at",
    )
    operator_extra_links = LINKS
    may_be_empty: ClassVar[Sequence[str]] = ("restart", "local", "start_at")

    def __init__(
        self,
        *,
        transform: Transform | None = None,
        batch: BatchPolicy | None = None,
        throttle: RateLimit | None = None,
        error_budget: ErrorBudget | None = None,
        dead_letters: DeadLetterPlace | None = None,
        batch_retry: BatchRetry | None = None,
        timeouts: Timeouts | None = None,
        readers: int = 2,
        checkpoint_store: str = "auto",
        when_cleared: str = "resume",
        restart: bool | str = False,
        local: bool | str = False,
        start_at: str | None = None,
        max_batches: int | None = None,
        plan_only: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.transform = transform
        self.batch = batch
        self.throttle = throttle
        self.error_budget = error_budget
        self.dead_letters = dead_letters
        self.batch_retry = batch_retry
        self.timeouts = timeouts
        self.readers = readers
        self.checkpoint_store = checkpoint_store
        self.when_cleared = when_cleared
        self.restart = restart
        self.local = local
        self.start_at = start_at
        self.max_batches = max_batches
        self.plan_only = plan_only

    @abstractmethod
    def source_value(self) -> Source:
        """Return the source, from the rendered arguments."""

    @abstractmethod
    def sink_value(self) -> Sink:
        """Return the sink, from the rendered arguments."""

    def job(self, name: str) -> Job:
        """Return what is to be done, from the rendered arguments.

        :param name: names the job in all its runs.
        :raises UsageError: arguments that are unrendered, contradict each other or can never work.
        """
        self.refuse_unrendered()
        return Job(
            name=name,
            source=self.source_value(),
            sink=self.sink_value(),
            transform=self.transform,
            batch=self.batch or BatchPolicy(),
            throttle=self.throttle,
            error_budget=self.error_budget or ErrorBudget(),
            dead_letters=self.dead_letters,
            batch_retry=self.batch_retry or BatchRetry(),
            timeouts=self.timeouts or Timeouts(),
            readers=self.readers,
            local=as_switch("local", self.local),
            start_at=as_optional_text(self.start_at),
            max_batches=self.max_batches,
        )

    @override
    def execute(self, context: Context) -> dict[str, Any]:
        """Run one leg.

        :returns: the final report, or the plan, as JSON types.
        :raises AirflowRescheduleException: the run goes on later; no retry is used.
        :raises AirflowFailException: it would fail again; retries are left alone.
        :raises TransientError: it may work at the next try.
        """
        settle_process()
        stop = self._stop
        try:
            settings = site_settings()
        except UsageError as error:
            raise AirflowFailException(str(error)) from error
        with AirflowThread() as airflow:
            mirror = AirflowMirror(context, airflow=airflow, retention=settings.retention)
            try:
                return self._leg(context, airflow=airflow, mirror=mirror, stop=stop, settings=settings)
            except BatchkitError as error:
                if isinstance(error, SupersededError):
                    airflow.abandon()
                    log.warning("superseded: %s; this leg ends and touches nothing more", error)
                legs = max(mirror.legs, int(context.get("task_reschedule_count") or 0) + 1)
                raise outcome(error, stop_asked=stop.asked, legs=legs, settings=settings) from error

    @override
    def on_kill(self) -> None:
        """Ask the leg to stop at the next batch boundary; a signal handler must not call Airflow."""
        self._stop.ask("the task was asked to stop (SIGTERM)")

    @property
    def _stop(self) -> Stop:
        # Made when first asked for, in one step that a signal cannot split: on_kill may come before execute.
        stop: Stop = self.__dict__.setdefault("_stop_of_this_leg", Stop())
        return stop

    def _leg(
        self,
        context: Context,
        *,
        airflow: AirflowThread,
        mirror: AirflowMirror,
        stop: Stop,
        settings: SiteSettings,
    ) -> dict[str, Any]:
        task = context["ti"]
        job = self.job(f"{task.dag_id}.{task.task_id}")
        connections = AirflowConnections(airflow)
        store = store_for_task(
            self.checkpoint_store,
            context,
            airflow=airflow,
            retention=settings.retention,
            job=job,
            connections=connections,
        )
        shared = isinstance(store, TargetStore)
        pipeline = Pipeline(
            job,
            identity=run_identity(
                context,
                when_cleared=self.when_cleared,
                restart=as_switch("restart", self.restart),
                max_checkpoint_age=settings.checkpoint_max_age,
                shared=shared,
            ),
            store=store,
            key=TARGET_KEY if shared else CHECKPOINT_KEY,
            connections=connections,
            stop=stop,
            listeners=[
                LogListener(log),
                mirror,
                MetricsListener(dag_id=task.dag_id, task_id=task.task_id),
                LinkListener(
                    self,
                    context,
                    airflow=airflow,
                    letters=getattr(self.dead_letters, "url", None),
                    console=settings.s3_console_url,
                ),
            ],
            environment=_environment(context, settings),
            max_wait_in_slot=settings.max_wait_in_slot_seconds,
            max_stuck_legs=settings.max_stuck_legs,
            max_legs=settings.max_legs,
            log=log,
        )
        try:
            report = pipeline.plan().to_dict() if self.plan_only else pipeline.run().to_dict()
        finally:
            if isinstance(store, TargetStore):
                store.close()
        if self.plan_only or job.mode != "real":
            withhold_outlets(self)
        else:
            note_outlets(self, context, report)
        return report


def _environment(context: Context, settings: SiteSettings) -> dict[str, Any]:
    """Return the facts of this process for the log's start block."""
    from airflow import __version__ as airflow_version

    from airflow_batchkit import __version__

    task = context["ti"]
    return {
        "name": settings.environment_name or "not named ([batchkit] environment_name)",
        "host": socket.gethostname(),
        "airflow": airflow_version,
        "airflow_batchkit": __version__,
        "python": platform.python_version(),
        "run_id": task.run_id,
        "try": task.try_number,
        "map_index": getattr(task, "map_index", -1),
    }
