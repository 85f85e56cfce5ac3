"""Ring 1: sources, sinks and dead-letter places; each with the table of its errors. No Airflow."""
