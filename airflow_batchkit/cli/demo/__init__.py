"""``batchkit demo``: the embedded example in a real Airflow of its own, killed half-way and proven whole."""
