"""The shipped test kit: in-memory doubles, and contract suites to run on your own sources, sinks, stores."""
