"""GPTEval3D: pairwise comparison of assets by a judge, and Elo scores (Wu et al., CVPR 2024)."""
