"""Ring 2: messages to people."""
