"""The CUDA back end: turns a Program into PTX kernels and a plan of their launches."""
