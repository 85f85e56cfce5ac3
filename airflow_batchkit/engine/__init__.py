"""The batch engine: reads, transforms, writes, commits, publishes. Knows no Airflow and no client library."""
