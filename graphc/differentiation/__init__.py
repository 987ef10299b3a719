"""Derivatives as graphs: `grad` of a whole system of equations, backwards in time; `rtrl`, forwards in time, with
`influence` and `rows`; `gradient` of a value by others; and `jacobian`, which says how a step of a cycle depends on
those before it.
"""
