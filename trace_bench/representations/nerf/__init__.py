"""A neural radiance field like instant-NGP, with threestudio's settings for score distillation.

hash_grid.py    the encoding and its spatial derivatives
field.py        density, colour and normal at a point
occupancy.py    which cells are occupied
rays.py         camera rays and the samples on them
volume.py       compositing along a ray, and its gradient
render.py       field and samples to what a ray sees
environment.py  the learned background
shading.py      the point light
losses.py       losses that keep the field solid
schedule.py     levels and resolution over the run
mesh.py         marching cubes and the mesh files
nerf.py         the representation
"""

from trace_bench.representations.nerf.nerf import NeRF

__all__ = ["NeRF"]
