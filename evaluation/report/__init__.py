"""The report: one folder with a page of all runs, which opens from disk."""
