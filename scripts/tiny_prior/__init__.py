"""The stages of training the tiny models; run them through scripts/train_tiny_prior.py."""
