"""LLVM IR for both back ends: its `builder`, the scalar language in it (`functions`), elementary functions (`math`, by
`polynomials`), and `memory`."""
