"""Mathematics of diffusion on tensors: schedules, timesteps, inversion, the bridge. No networks."""
