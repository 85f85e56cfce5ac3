"""Elasticsearch: reading by sequence-number windows inside a point in time."""
