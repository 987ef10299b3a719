"""The CPU back end. A `module` calls a function for each `kernel`, one for all that are alike (`canonical`). A kernel's
loops are a `nest`, its reductions are tiled (`tile`, `reduce`), its scalars are placed in `values`, and what they load
lies at `addresses`. Threads meet at a `barrier` and keep a `clock`; `denormals` count as zero. `c_function` wraps a
program for C, and `jit` makes machine code, for the `machine` that a user names.
"""
