"""Derivatives as graphs: `grad` of a whole system of equations, backwards in time; `rtrl`, forwards in time, with each
param's `influence`, whose elements move `one_by_one` or by `rows`; `gradient` of a value by others; and `jacobian`,
which says how a step of a cycle depends on those before it.
"""
