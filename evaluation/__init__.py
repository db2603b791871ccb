"""Scores, tables and pictures from run folders; knows nothing of how an asset was made."""
