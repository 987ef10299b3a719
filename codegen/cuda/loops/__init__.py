"""Persistent loops: one launch computes all steps (`loop_unit`, `versions`, and the code in `loop`).

`slices` never need each other, so groups of CTAs compute them independently. `thread_mapping` says which thread
computes which point. `products` find operands that no step changes; these are `stationary` on the chip (`tile` with
`geometry`, `mma_tile` with `mma_geometry`). What a step makes for the next lies in a `mirror` in shared memory
(`mirrored` is its code); the CTAs of a group exchange it (`exchanges`, `all_gather`) or wait at `barriers`. `prefetch`
loads a thread's own operands before it waits; what it stores may wait until it has sent (`deferred_stores`).

Loops whose points never need each other are computed without groups (`pointwise_unit`, `pointwise`); if they are
`linear`, as a `scan`.
"""
