"""What a run leaves: the adapter, curves, report, result.json and the run folder."""
