"""Metrics: one file or package each, plus shared code."""
