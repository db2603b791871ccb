"""Many runs: plan them, run them here or on Slurm, follow them."""
