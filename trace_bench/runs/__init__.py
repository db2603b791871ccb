"""Executing one run: build its parts, resume it, record how it ended."""
