"""Everything that watches a run: run directory, metrics, live progress, curves and event streams."""
