"""ImageReward (Xu et al. 2023): the metric and two backends that give the same numbers."""
