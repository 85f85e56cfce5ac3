"""Ring 4: operators named after the two systems they connect."""
