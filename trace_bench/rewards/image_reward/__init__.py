"""ImageReward (Xu et al. 2023): the network, its files, and the reward."""
