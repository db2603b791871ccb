"""trace_bench makes 3D assets from text by score distillation, the same way for every method.

Importing the package is cheap: torch and everything heavier is imported by the modules that need it.
"""

__version__ = "0.1.0"
