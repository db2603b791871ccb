"""Layout of the hash encoding's table (Müller et al., Instant NGP, 2022, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from trace_bench.system.errors import TraceBenchError

FEATURES = 2  # numbers per vertex; the CPU kernels assume 2


@dataclass(frozen=True)
class HashLayout:
    """Layout of the table: rows of two numbers for the vertices of all levels, coarse to fine.

    A level of N cells a side has (N + 1)^3 vertices. Each gets its own row if 2^log2_size rows are enough;
    otherwise the vertices share these rows by the hash of equation 4.
    """

    levels: int = 16
    log2_size: int = 19  # maximum rows of a level, as log2
    base: int = 16  # cells a side of the coarsest level
    growth: float = 1.447269237440378  # factor between levels: 4096 cells at the sixteenth
    smooth: bool = False  # smoothstep instead of linear interpolation, for normals without creases

    def __post_init__(self) -> None:
        for name in ("levels", "base"):
            if getattr(self, name) < 1:
                raise TraceBenchError(
                    f"representation.hash_grid.{name} must be at least 1, but is {getattr(self, name)}."
                )
        if not 1 <= self.log2_size <= 24 or self.growth < 1.0:
            raise TraceBenchError(
                "representation.hash_grid needs log2_size from 1 to 24 and growth of at least 1, but has "
                f"log2_size={self.log2_size} and growth={self.growth}."
            )

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Cells a side of each level (equation 2)."""
        return tuple(int(self.base * self.growth**level + 1e-6) for level in range(self.levels))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First row of each level, then the total number of rows."""
        starts = [0]
        for resolution in self.resolutions:
            starts.append(starts[-1] + min((resolution + 1) ** 3, 1 << self.log2_size))
        return tuple(starts)

    @property
    def rows(self) -> int:
        return self.starts[-1]

    @property
    def width(self) -> int:
        """Number of features per position."""
        return self.levels * FEATURES
