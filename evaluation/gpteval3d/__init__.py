"""GPTEval3D: assets compared in pairs by a judge, and the Elo scores that follow (Wu et al., CVPR 2024)."""
