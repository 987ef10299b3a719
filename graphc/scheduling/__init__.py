"""From a graph to a Program: `schedule` says which values are computed for themselves, and in which loops, `sink` and
`lookahead` change what a loop does, `fuse`, `kernel` and `lets` make kernels, and `lower` makes the Program of them."""
