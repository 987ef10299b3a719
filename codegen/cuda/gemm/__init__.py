"""Products at the top of a program, by tiles in shared memory (`blocks`): their `factors`, which `tile_loader` brings,
and the sums, by multiply-adds (`fma_product`) or on the tensor cores (`mma_product`, `mma_blocking`).
"""
