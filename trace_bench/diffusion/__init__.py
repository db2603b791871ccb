"""Diffusion mathematics on tensors: schedules, timesteps, inversion, the bridge. No networks."""
