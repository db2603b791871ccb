"""Frozen diffusion priors."""
