"""Training stages of the tiny models; run by scripts/train_tiny_prior.py."""
