"""The run folder's contract: what it holds, and who may read it."""
