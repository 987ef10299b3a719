"""A graph as another graph that a user asks for: written out (`unroll`), one step of it (`step`), a part of it
(`select`), without training (`inference`), in another dtype (`precision`), its two passes apart (`two_passes`).
"""
