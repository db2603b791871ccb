"""Ways to start, one file each."""
