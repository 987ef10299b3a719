"""graphc: a symbolic autodiff compiler for recurrent networks."""

from graphc import cells
from graphc.functions import (
    abs,
    argmax,
    cast,
    clip,
    concat,
    cos,
    cross_entropy,
    custom_gradient,
    dropout,
    einsum,
    elu,
    embedding,
    erf,
    exp,
    expm1,
    floor,
    gelu,
    hard_sigmoid,
    index,
    leaky_relu,
    length,
    log,
    log1p,
    log_softmax,
    max,
    maximum,
    mean,
    min,
    minimum,
    one_hot,
    outer,
    random,
    relu,
    sigmoid,
    sign,
    silu,
    sin,
    softmax,
    softplus,
    split,
    sqrt,
    square,
    stack,
    stop_gradient,
    sum,
    tanh,
    transpose,
    var,
    where,
)
from graphc.compile import compile, emit
from graphc.errors import GraphError
from graphc.grad import grad, jvp, vjp
from graphc.graph import Graph
from graphc.initialize import initialize
from graphc.interpreter import interpret
from graphc.parse import parse
from graphc.unroll import unroll
from graphc.value import State, Value
from graphc.verify import verify
