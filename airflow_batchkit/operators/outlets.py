"""What the tasks downstream hear: asset events with the counts of what was published."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import BaseOperator

_COUNTS = ("read", "written", "unchanged", "filtered", "dead_lettered")

log = logging.getLogger("airflow_batchkit")


def note_outlets(operator: BaseOperator, context: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Put the counts of a complete run into the events of its outlets.

    An ``Asset`` gets them as its event's ``extra``. An ``AssetAlias`` stands for whatever was published, as a
    template in the sink's URL decides: it gets an event for that location.

    :param operator: the task.
    :param context: of the running task.
    :param report: the final report, as JSON types.
    """
    published = report["published"]
    facts = {
        "run": report["run"],
        "generation": report["generation"],
        **{name: report["counts"][name] for name in _COUNTS},
        **{name: published[name] for name in ("location", "manifest") if name in published},
    }
    for outlet in operator.outlets:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra.update(facts)
        elif isinstance(outlet, AssetAlias) and "location" in facts:
            context["outlet_events"][outlet].add(Asset(str(facts["location"])), extra=facts)


def withhold_outlets(operator: BaseOperator) -> None:
    """Let no event be made: nothing was published that a DAG downstream could work on.

    Airflow makes an event for each outlet of a task that succeeds, whatever it did.
    """
    if operator.outlets:
        log.info("no asset event is made: nothing whole was published")
        operator.outlets = []
