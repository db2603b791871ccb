"""ImageReward (Xu et al. 2023): the metric, and the package of its authors in a process of its own."""
