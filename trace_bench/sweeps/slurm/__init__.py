"""Sweeps as Slurm jobs."""
