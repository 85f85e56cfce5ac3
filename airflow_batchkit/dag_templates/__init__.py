"""Ring 5: whole DAGs in ten lines."""
