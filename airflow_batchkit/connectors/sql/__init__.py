"""SQL: reading by key order."""
