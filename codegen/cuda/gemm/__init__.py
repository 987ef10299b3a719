"""Matrix products outside of loops, computed tile by tile in shared memory (`blocks`).

`large_product` says which kernels. `factors` takes a kernel's product apart, `tile_loader` loads blocks of its factors,
and the sums are made by multiply-adds (`fma_product`) or on the tensor cores (`mma_product`, with tiles chosen by
`mma_blocking`).
"""
