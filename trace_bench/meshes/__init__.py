"""Triangle meshes that other systems made: files, surface points, pictures."""
