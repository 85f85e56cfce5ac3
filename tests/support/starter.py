"""A process that starts a run on another prefix whenever a line comes in.

``python -m tests.support.starter SETTINGS``, as JSON: ``url``, ``connections``, ``number``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from airflow_batchkit.engine.exceptions import BatchkitError
from tests.support.object_storage import Place, S3Connections, leg


def main(settings: dict[str, Any]) -> None:
    """Say how each start ended: ``won``, or the name of the error."""
    place = Place(url=settings["url"], connections=S3Connections(**settings["connections"]))
    number = settings["number"]
    this = leg(str(number), run=f"run-{number}", generation=f"0000000{number}")
    sinks = []
    print("ready", flush=True)  # noqa: T201  # the test reads it
    for position, _ in enumerate(sys.stdin):
        sinks.append(place.below(f"round-{position}").sink())
        try:
            sinks[-1].start(this)
            said = "won"
        except BatchkitError as error:
            said = type(error).__name__
        print(said, flush=True)  # noqa: T201  # the test reads it


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
