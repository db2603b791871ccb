"""ImageReward (Xu et al. 2023): the metric, and two ways to compute it that give the same numbers."""
