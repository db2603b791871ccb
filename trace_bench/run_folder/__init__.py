"""The contents of a run folder, and how to read them."""
