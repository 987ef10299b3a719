"""Testing recurrent graphs: hypothesis strategies that draw well-formed ones, and gradient checks.

from hypothesis import given
from graphc import testing

@given(testing.graphs())
def test_my_pass(example):
    before, after = gc.interpret(example.graph, **example.arrays), …
"""

from graphc.testing.gradient_check import Arrays, GradientError, check_gradients, random_arrays
from graphc.testing.graphs import Example, graphs

__all__ = ["Arrays", "Example", "GradientError", "check_gradients", "graphs", "random_arrays"]
