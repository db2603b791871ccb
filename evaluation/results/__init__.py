"""Everything known about the runs, as one frame."""
