"""Many runs: plan them, run them locally or on Slurm, check their status."""
