"""Buttons on a task's page that lead to its output, its manifest and its dead letters, also while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink
from typing_extensions import override

from airflow_batchkit.engine.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

    from airflow_batchkit.engine.report import Report
    from airflow_batchkit.hooks.airflow_thread import AirflowThread

_ATTRIBUTE = "batchkit_links"
_MANIFEST = "manifest.json"
_SCHEMES = ("s3://", "file://")


class _Link(BaseOperatorLink):
    """A button; its address is kept in XCom under :attr:`xcom_key`."""

    name: ClassVar[str]

    @override
    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address that the running task found out; Airflow stores it again when the task ends."""
        addresses: Mapping[str, str] = getattr(operator, _ATTRIBUTE, {})
        return addresses.get(self.name, "")


class OutputLink(_Link):
    """Leads to the folder of the published output."""

    name = "Output"


class ManifestLink(_Link):
    """Leads to the manifest, which lists what is published."""

    name = "Manifest"


class DeadLettersLink(_Link):
    """Leads to the dead letters of the job."""

    name = "Dead letters"


LINKS = (OutputLink(), ManifestLink(), DeadLettersLink())


class LinkListener(Listener):
    """Fills the buttons when a leg begins, and again when the run is complete.

    :param operator: the running task.
    :param context: its context.
    :param airflow: makes the calls, without the run waiting for them.
    :param letters: where the job keeps its dead letters, as a URL; None where it keeps none, or elsewhere.
    :param console: address of an object in the web console of the S3 store, with ``{bucket}`` and ``{key}``.
    """

    def __init__(
        self,
        operator: BaseOperator,
        context: Mapping[str, Any],
        *,
        airflow: AirflowThread,
        letters: str | None,
        console: str,
    ) -> None:
        self._operator = operator
        self._task = context["ti"]
        self._airflow = airflow
        self._letters = letters
        self._console = console

    @override
    def on_start(self, facts: Mapping[str, Any]) -> None:
        location = facts["sink"].get("location")
        found = {DeadLettersLink.name: self._letters, OutputLink.name: location}
        if location and facts["sink"].get("format"):
            found[ManifestLink.name] = f"{location}/{_MANIFEST}"
        self._show(found)

    @override
    def on_finish(self, report: Report) -> None:
        found = {
            OutputLink.name: report.published.get("location"),
            ManifestLink.name: report.published.get("manifest"),
            DeadLettersLink.name: report.dead_letters.get("place"),
        }
        self._show(found)

    def _show(self, found: Mapping[str, str | None]) -> None:
        known: dict[str, str] = self._operator.__dict__.setdefault(_ATTRIBUTE, {})
        # A function that is called, an index or a table is no place that a browser could open.
        places = {name: url for name, url in found.items() if url is not None and url.startswith(_SCHEMES)}
        known.update((name, browsable(url, self._console)) for name, url in places.items())
        self._airflow.post("links of the task", self._push, dict(known))

    def _push(self, addresses: Mapping[str, str]) -> None:
        for link in LINKS:
            if link.name in addresses:
                self._task.xcom_push(key=link.xcom_key, value=addresses[link.name])


def browsable(url: str, console: str) -> str:
    """Return what a browser can open for a location: an S3 URL becomes a page of the store's console.

    :param url: ``s3://bucket/key``; anything else stays as it is.
    :param console: with ``{bucket}`` and ``{key}``; empty: the URL stays as it is.
    """
    if not url.startswith("s3://") or not console:
        return url
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not key.endswith((".json", "/")):
        key += "/"
    return console.replace("{bucket}", quote(bucket)).replace("{key}", quote(key))
