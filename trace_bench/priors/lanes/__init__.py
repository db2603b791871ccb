"""Lanes: runs of one process that share a prior, whose network calls are merged (continuous batching)."""
