"""Assets that other systems made: opened, placed in our world, and rendered like our own."""

from trace_bench.external.assets import External

__all__ = ["External"]
