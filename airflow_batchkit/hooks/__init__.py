"""Ring 2: connections resolved through Airflow's hooks."""
