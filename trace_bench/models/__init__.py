"""The tiny models that ship with the package: a diffusion prior and a CLIP, as data folders."""
