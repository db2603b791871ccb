"""What can be made: one file a representation, and the CPU rasteriser beside gsplat."""
