"""initialize: an array for every param of a graph, by the initialiser that each names.

In: a graph and a seed. Out: a dict of new arrays by param name, ready to be passed to a call. Each array depends on
the seed, the param's name, shape and initialiser alone, so adding a param to a graph leaves all others as they were,
and a float32 graph starts where its float64 twin does.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from graphc.errors import DtypeError
from graphc.integers import is_whole
from graphc.ir import Node
from graphc.language.graph import Graph, Param, check_graph
from graphc.language.initialisers import initialiser
from graphc.machine import check_memory
from graphc.ops.leaves import array_of


def initialize(g: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """A new array for every param, filled as its `init` says.

    | init | fills with |
    |---|---|
    | a number, "zeros", "ones" | that constant |
    | an array | its elements |
    | "normal(std)" | N(0, std²); std is 1 by default |
    | "uniform(low, high)" | U(low, high); "uniform(a)" is U(-a, a) |
    | "glorot_uniform", "glorot_normal" (also "xavier_…") | variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010) |
    | "kaiming_uniform", "kaiming_normal" (also "he_…", "kaiming") | variance 2 / fan_in (He et al. 2015) |
    | "lecun_uniform", "lecun_normal" | variance 1 / fan_in (LeCun et al. 1998) |
    | "orthogonal(gain)" | gain · a random matrix with orthonormal rows or columns (Saxe et al. 2014) |
    | "identity(gain)" | gain · the identity (Le et al. 2015) |

    A matrix of shape (out, in) has these fans; further dimensions are a convolution's window and multiply both. A
    vector has its length for both fans.
    """
    check_graph(g)
    if not is_whole(seed) or seed < 0:
        raise DtypeError(f"a seed is an int of at least 0, got {seed!r}")
    size = sum(math.prod(p.node.shape) * np.dtype(p.node.dtype).itemsize for p in g.params.values())
    check_memory(size, f"the params of graph {g.name!r}")
    return {name: _array(name, param, int(seed)) for name, param in g.params.items()}


def _array(name: str, param: Param, seed: int) -> np.ndarray:
    if isinstance(param.init, Node):
        return array_of(param.init).copy()
    draw = initialiser(name, param.init, param.node)
    digest = hashlib.sha256(name.encode()).digest()
    generator = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
    return np.array(draw(generator), param.node.dtype, order="C")
