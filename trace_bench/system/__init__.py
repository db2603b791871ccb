"""Files, caches, compiled kernels and errors."""
