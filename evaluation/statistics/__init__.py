"""Tests and intervals of differences between methods: docs/statistics.md."""
