"""Asking a model: requests one by one or in batches, what they cost, and every answer kept for good."""
