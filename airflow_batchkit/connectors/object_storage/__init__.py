"""Object storage (``s3://``, ``file://``): staged parts, one-switch publish, dead letters, owner record."""
