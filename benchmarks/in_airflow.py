"""The same export by the operator, inside Airflow: one run of a DAG in this process.

Called as ``python -m benchmarks.in_airflow INDEX BUCKET PREFIX``; the last line that it writes is JSON. The
connections are Airflow's, from the environment.
"""

from __future__ import annotations

import json
import sys

from tests.support.airflow import make_database, prepare_environment, run_dag


def main() -> None:
    """Run the DAG, and write what its task reported."""
    prepare_environment()
    make_database()
    from airflow.sdk import DAG

    from airflow_batchkit import ElasticsearchToS3Operator

    index, bucket, prefix = sys.argv[1:]
    with DAG("bench", schedule=None) as dag:
        ElasticsearchToS3Operator(task_id="export", index=index, s3_bucket=bucket, s3_prefix=prefix)
    run = run_dag(dag)
    task = run.get_task_instance("export")
    if task is None or task.state != "success":
        raise RuntimeError(f"the task ended as {task and task.state}")
    report = task.xcom_pull(task_ids="export")
    seconds = report["active_seconds"]
    sys.stdout.write("\n" + json.dumps({"records": report["counts"]["read"], "seconds": seconds}) + "\n")


if __name__ == "__main__":
    main()
