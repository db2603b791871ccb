"""Representations, one file or package each, and the CPU rasteriser used in place of gsplat."""
