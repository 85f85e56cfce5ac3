"""Ring 4: ``@task.batch_pipeline``."""
