"""The CPU back end: a `module` calls a function for each `kernel`, whose reductions are tiled (`tile`, `reduce`) and
whose scalars are placed in `values`; `jit` makes machine code of it, for the `machine` that a user names.
"""
