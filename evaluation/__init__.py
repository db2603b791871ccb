"""Scores, tables and figures from run folders, independent of how an asset was made."""
