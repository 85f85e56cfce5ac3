"""Ring 2: places that keep checkpoints."""
