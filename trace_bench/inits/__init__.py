"""Inits, one file each: what a run starts from."""
