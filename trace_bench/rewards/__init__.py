"""Rewards: a number for a picture and a prompt. Methods may maximise one; `evaluation` shows some as metrics.

One module and one YAML in conf/reward/ each. Nothing here knows methods, priors or run folders.
"""
