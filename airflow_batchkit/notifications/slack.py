"""Slack alerts: a task or a run that failed, and a run that is late.

The notifiers work wherever Airflow calls back: in the task's process, in the dag-processor, in the triggerer.
An alert never fails or delays what it is about.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseNotifier
from typing_extensions import override

from airflow_batchkit.engine.exceptions import StoppedError, SupersededError
from airflow_batchkit.notifications.destination import chosen_destination
from airflow_batchkit.notifications.incident import deadline_incident, failure_incident
from airflow_batchkit.notifications.once import claimed
from airflow_batchkit.notifications.ping import SuccessPing
from airflow_batchkit.notifications.rendering import render
from airflow_batchkit.notifications.standing import Standing, standing_of_run, standing_of_task
from airflow_batchkit.notifications.told import alert_key, mark, told_by_the_task

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_batchkit.notifications.incident import Incident
    from airflow_batchkit.notifications.once import State

_log = logging.getLogger(__name__)


class _SlackNotifier(BaseNotifier):
    """What the notifiers share: where to, once only, and never in anybody's way."""

    def __init__(
        self,
        *,
        channel: str | None = None,
        slack_conn_id: str | None = None,
        slack_webhook_conn_id: str | None = None,
        context: Context | None = None,
    ) -> None:
        super().__init__(context=context)
        self.destination = chosen_destination(
            channel=channel, slack_conn_id=slack_conn_id, slack_webhook_conn_id=slack_webhook_conn_id
        )

    @override
    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Render nothing: no field is a template, and some contexts' DAG cannot make a Jinja environment."""

    @override
    def notify(self, context: Context) -> None:
        """Send the alert; what goes wrong is logged, and nothing more."""
        from airflow_batchkit.notifications.delivery import send

        facts: Mapping[str, Any] = {**context}
        try:
            incident = self._incident(facts)
            if incident is None:
                return
            with claimed(alert_key(incident, self.destination)) as first:
                if first:
                    self._mark(facts, incident, "telling")
                    send(self.destination, render(incident, self._standing(facts, incident)))
                    self._mark(facts, incident, "told")
        except Exception as error:  # noqa: BLE001  # logged; an alert must not change what becomes of the task
            self._log_not_sent(error)

    @override
    async def async_notify(self, context: Context) -> None:
        """Send the alert from an event loop; what goes wrong is logged, and raised.

        The triggerer, which runs this, marks the callback as failed: no task hangs on it, people can see it.
        """
        from airflow_batchkit.notifications.delivery import send_async

        facts: Mapping[str, Any] = {**context}
        try:
            incident = await asyncio.to_thread(self._incident, facts)
            if incident is None:
                return
            with claimed(alert_key(incident, self.destination)) as first:
                if first:
                    standing = await self._standing_async(facts, incident)
                    await send_async(self.destination, render(incident, standing))
        except Exception as error:
            self._log_not_sent(error)
            raise

    @abstractmethod
    def _incident(self, context: Mapping[str, Any]) -> Incident | None:
        """Return what happened; None where there is nothing to say."""

    @abstractmethod
    def _standing(self, context: Mapping[str, Any], incident: Incident) -> Standing | None:
        """Return where the job stands."""

    @abstractmethod
    async def _standing_async(self, context: Mapping[str, Any], incident: Incident) -> Standing | None:
        """Return where the job stands, without holding up the event loop."""

    def _mark(self, context: Mapping[str, Any], incident: Incident, state: State) -> None:
        """Hear that the alert is about to go out, and that it is out."""

    def _log_not_sent(self, error: Exception) -> None:
        _log.error(
            "alert not sent through connection %r: %s: %s; check the connection and the channel",
            self.destination.conn_id,
            type(error).__name__,
            " ".join(str(error).split()),
        )


class SlackFailureNotifier(_SlackNotifier):
    """Says in Slack that a task or a run failed: error, where the job stands, stack trace, link to the log.

    Give it to ``on_failure_callback`` of tasks *and* of the DAG (:func:`slack_alerts` does): a process that
    is killed on its last try cannot call back itself, only the DAG's callback runs then. Where a task's own
    alert went out to the same place, the DAG's says nothing about the same try.

    :param channel: channel for the Web API.
    :param slack_conn_id: connection of type ``slack`` for the Web API. Default ``slack_api_default``.
    :param slack_webhook_conn_id: connection of type ``slackwebhook``, instead of the other two.
    :param context: set by Airflow when it runs the notifier in the triggerer.
    :raises UsageError: both ways are given, or neither.
    """

    @override
    def _incident(self, context: Mapping[str, Any]) -> Incident | None:
        if _is_no_failure(context.get("exception")):
            _log.info("no alert: this try was superseded or stopped; the run goes on elsewhere")
            return None
        incident = failure_incident(context)
        if incident.kind == "run_failed" and told_by_the_task(context, incident, self.destination):
            _log.info("no alert: the alert of task %s is out", incident.task_id)
            return None
        return incident

    @override
    def _standing(self, context: Mapping[str, Any], incident: Incident) -> Standing | None:
        return standing_of_task(context)

    @override
    async def _standing_async(self, context: Mapping[str, Any], incident: Incident) -> Standing | None:
        return await asyncio.to_thread(standing_of_task, context)

    @override
    def _mark(self, context: Mapping[str, Any], incident: Incident, state: State) -> None:
        mark(context, incident, self.destination, state)


class SlackDeadlineNotifier(_SlackNotifier):
    """Says in Slack that a run is late; the ``callback`` of a ``DeadlineAlert``, as an ``AsyncCallback``.

    :param channel: channel for the Web API.
    :param slack_conn_id: connection of type ``slack`` for the Web API. Default ``slack_api_default``.
    :param slack_webhook_conn_id: connection of type ``slackwebhook``, instead of the other two.
    :param task_id: the task to link to and to say the progress of; not a mapped one.
    :param context: set by Airflow.
    """

    def __init__(
        self,
        *,
        channel: str | None = None,
        slack_conn_id: str | None = None,
        slack_webhook_conn_id: str | None = None,
        task_id: str | None = None,
        context: Context | None = None,
    ) -> None:
        super().__init__(
            channel=channel,
            slack_conn_id=slack_conn_id,
            slack_webhook_conn_id=slack_webhook_conn_id,
            context=context,
        )
        self.task_id = task_id

    @override
    def _incident(self, context: Mapping[str, Any]) -> Incident | None:
        return deadline_incident(context, task_id=self.task_id)

    @override
    def _standing(self, context: Mapping[str, Any], incident: Incident) -> Standing | None:
        # A SyncCallback runs under a token that may read nothing.
        return None

    @override
    async def _standing_async(self, context: Mapping[str, Any], incident: Incident) -> Standing | None:
        if incident.task_id is None:
            return None
        return await standing_of_run(dag_id=incident.dag_id, run_id=incident.run_id, task_id=incident.task_id)


def slack_alerts(
    *,
    channel: str | None = None,
    slack_conn_id: str | None = None,
    slack_webhook_conn_id: str | None = None,
    deadline: timedelta | None = None,
    task_id: str | None = None,
    default_args: Mapping[str, Any] | None = None,
    ping_url: str | None = None,
) -> dict[str, Any]:
    """Return the arguments of a DAG that wire its alerts: ``DAG("x", …, **slack_alerts(channel="#data"))``.

    Failures are wired at task level and at DAG level, lateness by a ``DeadlineAlert`` that counts from when
    the run was queued and is called back in the triggerer.

    :param channel: channel for the Web API.
    :param slack_conn_id: connection of type ``slack`` for the Web API. Default ``slack_api_default``.
    :param slack_webhook_conn_id: connection of type ``slackwebhook``, instead of the other two.
    :param deadline: how long after it was queued a run may be unfinished. Default: no alert for lateness.
    :param task_id: the task that an alert for lateness links to, with its progress.
    :param default_args: the DAG's own ``default_args``, kept.
    :param ping_url: pinged after each run that succeeded (a dead man's switch); ``variable:NAME`` and
        ``connection:ID`` keep the address out of the DAG file. Default: nothing is pinged.
    :raises UsageError: both ways into Slack are given, or neither; or the address is not https.
    """
    where: dict[str, Any] = {
        name: given
        for name, given in (
            ("channel", channel),
            ("slack_conn_id", slack_conn_id),
            ("slack_webhook_conn_id", slack_webhook_conn_id),
        )
        if given is not None
    }
    failed = SlackFailureNotifier(**where)
    arguments: dict[str, Any] = {
        "on_failure_callback": failed,
        "default_args": {**(default_args or {}), "on_failure_callback": failed},
    }
    if ping_url is not None:
        arguments["on_success_callback"] = SuccessPing(ping_url)
    if deadline is not None:
        arguments["deadline"] = _deadline_alert(
            deadline, {**where, **({"task_id": task_id} if task_id else {})}
        )
    return arguments


def _deadline_alert(deadline: timedelta, parameters: dict[str, Any]) -> Any:
    from airflow.sdk.definitions.deadline import (  # type: ignore[attr-defined]  # all three live here on 3.1
        AsyncCallback,
        DeadlineAlert,
        DeadlineReference,
    )

    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=deadline,
        callback=AsyncCallback(SlackDeadlineNotifier, kwargs=parameters),
    )


def _is_no_failure(exception: object) -> bool:
    """Tell by an exception and its causes whether a try only made way for another one."""
    while isinstance(exception, BaseException):
        if isinstance(exception, SupersededError | StoppedError):
            return True
        exception = exception.__cause__
    return False
