"""Persistent loops on a GPU: `loop` has the steps. `products` with `stationary` operands stay on the chip (`tile`,
`mma_tile`, `geometry`); `slices` never meet, `thread_mapping` deals out points, and what a step makes for the next lies
in a `mirror` and is exchanged (`exchanges`, `all_gather`) or waited for (`barriers`)."""
