"""All results of the runs, as one frame."""
