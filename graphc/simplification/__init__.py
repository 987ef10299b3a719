"""A graph as a smaller one that computes the same: `rewrite` walks, `simplify` has the local identities, `distribute`,
`factor`, `reciprocal` and `outer_products` one idea each, and `prepare` puts them together for the scheduler."""
