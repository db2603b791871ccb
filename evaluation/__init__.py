"""Scores, tables and pictures from run folders; knows the folder's contract and nothing of how an asset was made."""
