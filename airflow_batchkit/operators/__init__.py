"""Ring 3: the generic operator."""
