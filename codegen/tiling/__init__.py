"""How a kernel's points are computed side by side: which loop runs in vector lanes, and which in registers
(`vectorize`); the tile of registers that takes the fewest cycles (`tile`); and the whole `Tiling`, with its blocks
(`tiling`). `instructions` estimates what a point costs beside.
"""
