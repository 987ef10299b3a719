"""LLVM IR for both back ends: its `builder`, the scalar language in it (`functions`), elementary functions (`math`, by
`polynomials`, written as `vector_expressions`), `memory`, and the conversions of `half_precision`."""
