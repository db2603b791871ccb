"""External assets, made by other systems: opened, placed in the world frame, and rendered like our own."""

from trace_bench.external.assets import External

__all__ = ["External"]
