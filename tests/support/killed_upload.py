"""A leg that is killed in the middle of an upload: ``python -m tests.support.killed_upload SETTINGS``."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from typing import Any, Literal

from airflow_batchkit.connectors.object_storage import S3Settings
from airflow_batchkit.engine.failpoints import probing
from airflow_batchkit.engine.sink import BatchKey
from airflow_batchkit.engine.types import Record
from tests.support.object_storage import Place, S3Connections, leg


def die(name: str, when: Literal["before", "after"]) -> None:
    """Be killed when all parts are sent, and the object is not there yet."""
    if (name, when) == ("s3.complete_upload", "before"):
        os.kill(os.getpid(), signal.SIGKILL)


def main(settings: dict[str, Any]) -> None:
    """Write one batch that is larger than a part."""
    place = Place(url=settings["url"], connections=S3Connections(**settings["connections"]))
    part = settings["multipart_bytes"]
    sink = place.sink(compression=None, s3_settings=S3Settings(multipart_bytes=part))
    sink.start(leg("1"))
    writer = sink.begin(BatchKey(partition=0, number=1))
    writer.add([Record(id="large", body=b'{"x":"%s"}' % random.randbytes(part).hex().encode())])
    with probing(die):
        writer.write()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
