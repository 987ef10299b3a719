"""Derivatives as graphs: `grad` of a whole system of equations, `gradient` of a value by others, and `jacobian`, which
says how a step of a cycle depends on those before it.
"""
