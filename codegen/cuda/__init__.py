"""The CUDA back end: a Program as PTX kernels, and the plan of their launches."""
