"""graphc: a symbolic autodiff compiler for recurrent networks.

    import graphc as gc

    g = gc.Graph("elman")
    t = g.axis("t")
    x = g.input("x", (3,), over=(t,))
    h = g.state("h", (8,), over=(t,))
    h[t] = gc.tanh(g.param("U", (8, 3)) @ x + g.param("W", (8, 8)) @ h[t - 1])
    g.output("h", h)
    gc.compile(g)(x=…, U=…, W=…)["h"]

`gc.testing` (property tests of your own cells) and `gc.datasets` are loaded when they are first used.
"""

import importlib
from types import ModuleType

from graphc import cells, layers, optim
from graphc.checkpoint import load, save
from graphc.checks.verify import verify
from graphc.compiling.compile import compile
from graphc.compiling.emit import emit
from graphc.compiling.export import Exported, export
from graphc.differentiation.grad import grad, jvp, vjp
from graphc.differentiation.gradient import gradient, jacobian
from graphc.differentiation.rtrl import rtrl
from graphc.drawing.draw import Drawing, draw
from graphc.errors import GraphError, MissingAttributeError
from graphc.interpreter import interpret
from graphc.language.ctc import ctc_loss
from graphc.language.einsum import einsum, outer
from graphc.language.functions import (
    abs,
    argmax,
    argmin,
    as_axis,
    as_dim,
    cast,
    clip,
    concat,
    cos,
    custom_gradient,
    elu,
    embedding,
    erf,
    exp,
    expm1,
    flip,
    floor,
    gelu,
    hard_sigmoid,
    index,
    leaky_relu,
    length,
    log,
    log1p,
    log_sigmoid,
    max,
    maximum,
    mean,
    min,
    minimum,
    one_hot,
    prod,
    relu,
    roll,
    sigmoid,
    sign,
    silu,
    sin,
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
from graphc.language.graph import Graph
from graphc.language.habits import missing_function
from graphc.language.image_blocks import blocks, image
from graphc.language.image_functions import avg_pool, batch_norm, conv, conv_transpose, max_pool, rms_norm, standardize
from graphc.language.probabilities import cross_entropy, log_softmax, logaddexp, logsumexp, softmax
from graphc.language.randomness import dropout, random
from graphc.language.value import State, Value
from graphc.notation.parse import parse
from graphc.reporting.explain import explain
from graphc.training.fit import Fit, fit
from graphc.training.initialize import initialize
from graphc.training.training_step import training_step
from graphc.transforms.inference import inference
from graphc.transforms.select import select
from graphc.transforms.step import initial_carry, step
from graphc.transforms.unroll import unroll

_LAZY = ("testing", "datasets")


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f"graphc.{name}")
    if name.startswith("_"):
        raise AttributeError(f"module 'graphc' has no attribute {name!r}")
    raise MissingAttributeError(missing_function(name))


def __dir__() -> list[str]:
    """What is public: completion and suggestions show this, and no module's insides."""
    return sorted([*__all__, *_LAZY])


__all__ = [
    "Drawing",
    "Exported",
    "Fit",
    "Graph",
    "GraphError",
    "State",
    "Value",
    "abs",
    "argmax",
    "argmin",
    "as_axis",
    "as_dim",
    "avg_pool",
    "batch_norm",
    "blocks",
    "cast",
    "cells",
    "clip",
    "compile",
    "concat",
    "conv",
    "conv_transpose",
    "cos",
    "cross_entropy",
    "ctc_loss",
    "custom_gradient",
    "draw",
    "dropout",
    "einsum",
    "elu",
    "embedding",
    "emit",
    "erf",
    "errors",
    "exp",
    "explain",
    "expm1",
    "export",
    "fit",
    "flip",
    "floor",
    "gelu",
    "grad",
    "gradient",
    "hard_sigmoid",
    "image",
    "index",
    "inference",
    "initial_carry",
    "initialize",
    "interpret",
    "jacobian",
    "jvp",
    "layers",
    "leaky_relu",
    "length",
    "load",
    "log",
    "log1p",
    "log_sigmoid",
    "log_softmax",
    "logaddexp",
    "logsumexp",
    "max",
    "max_pool",
    "maximum",
    "mean",
    "min",
    "minimum",
    "one_hot",
    "optim",
    "outer",
    "parse",
    "prod",
    "random",
    "relu",
    "rms_norm",
    "roll",
    "rtrl",
    "save",
    "select",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "square",
    "stack",
    "standardize",
    "step",
    "stop_gradient",
    "sum",
    "tanh",
    "training_step",
    "transpose",
    "unroll",
    "var",
    "verify",
    "vjp",
    "where",
]
