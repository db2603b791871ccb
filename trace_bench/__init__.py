"""trace_bench makes 3D assets from text by score distillation, with the same pipeline for every method.

Importing the package is cheap: torch and other heavy packages are imported only by modules that need them.
"""

__version__ = "0.1.0"
