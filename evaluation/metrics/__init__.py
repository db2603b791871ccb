"""Scores of a run: one file or package a metric, and what they share."""
