"""Habits of numpy, PyTorch and Python that a value of a graph cannot serve: each is refused with what is written here.

A value has no numbers until a call, so there is nothing that `len`, `float` or `if` could ask. The errors are of the
kinds that Python's own protocols expect: `hasattr`, `list` and `copy` work as ever.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import numpy as np

from graphc.errors import GraphError, MissingAttributeError, ProtocolError, ShapeError, meant
from graphc.ir import Axis

P = ParamSpec("P")
R = TypeVar("R")

NO_ARRAY = (
    "computes arrays, not values of a graph; graphc has functions of its own, as gc.tanh and gc.sum, and operators "
    "take values"
)
_CALL = "a value has numbers in a call alone: name it by g.output, and run gc.compile(g) or gc.interpret(g, …)"
_OUTPUT = 'g.output("x", x), and run gc.compile(g)(…)["x"]: a value has numbers in a call alone'
_CONSTANT = "x + np.ones(3): numbers and numpy arrays are constants as they are"
_CAST = 'gc.cast(x, "float32")'
_GRAD = 'gc.grad(g, "loss", wrt=["x"])'
_OPERATOR = "operators: x + y, x < y, a & b, ~a"
_PAIR = "two values, the real and the imaginary part; a product is a * c - b * d, a * d + b * c"
_LOOP = "the equation of a state: h[t] = f(h[t - 1], x)"
_ATTENTION = 'a second index of the axis: s = g.axis("s", t); gc.softmax(gc.sum(q * k[s]), over=s)'
_NORMAL = "gc.sqrt(-2 * gc.log(1 - u)) * gc.cos(2 * np.pi * v), where u and v are gc.random(…) of different salts"
_ELIMINATION = 'an elimination along an axis of its own: docs/guide.md, "Substeps of a solver"'
_SERIES = "its series along an axis of its own: P[k] = P[k - 1] @ A / (gc.index(k) + 1), and gc.sum(P, over=k)"
_RANK = (
    "the rank of each element, how many are smaller: r = gc.sum(x[None] < x[:, None], dim=1); where none are equal, x "
    "in order is gc.sum(gc.where(r[None] == np.arange(3)[:, None], x, 0), dim=1)"
)
INSTEAD = {  # of a method or a function of numpy or PyTorch that graphc does not have by that name
    **dict.fromkeys(("dot", "matmul", "mm", "bmm", "mv"), "x @ y"),
    **dict.fromkeys(("tensordot", "baddbmm", "addmm"), 'gc.einsum("ij,j->i", W, x)'),
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "true_divide", "floor_divide", "negative"), _OPERATOR),
    **dict.fromkeys(("equal", "not_equal", "greater", "less", "greater_equal", "less_equal"), _OPERATOR),
    **dict.fromkeys(("eq", "ne", "lt", "gt", "le", "ge", "logical_and", "logical_or", "logical_not"), _OPERATOR),
    **dict.fromkeys(("pow", "power"), "x ** y"),
    **dict.fromkeys(("mod", "fmod", "remainder"), "x % y"),
    **dict.fromkeys(("astype", "to", "type", "float", "double", "int", "long", "half"), _CAST),
    **dict.fromkeys(("item", "numpy", "tolist", "cpu", "cuda", "eval", "data"), _OUTPUT),
    **dict.fromkeys(("array", "asarray", "tensor", "constant", "zeros", "ones", "full", "eye"), _CONSTANT),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "linspace"), _CONSTANT),
    "arange": "gc.index(t), the position along an axis; np.arange(3) is a constant",
    **dict.fromkeys(("backward", "grad", "gradients"), _GRAD),
    **dict.fromkeys(("view", "flatten", "ravel"), "x.reshape(-1)"),
    **dict.fromkeys(("permute", "swapaxes", "t"), "x.T, or gc.transpose(x, 1, 0)"),
    **dict.fromkeys(("unsqueeze", "expand_dims"), "x[None]"),
    **dict.fromkeys(("ndim", "size", "numel"), "x.shape, the event's, and x.axes"),
    "cumsum": "a state: s[t] = s[t - 1] + x; along the event np.tril(np.ones((3, 3))) @ x",
    "cumprod": "a state that begins with 1: p[t] = p[t - 1] * x",
    "logcumsumexp": "a state that begins with -np.inf: s[t] = gc.logaddexp(s[t - 1], x)",
    **dict.fromkeys(
        ("cummax", "maximum_accumulate"), "a state that begins with -np.inf: m[t] = gc.maximum(m[t - 1], x)"
    ),
    **dict.fromkeys(
        ("topk", "top_k"), "a mask of the 2 largest: gc.where(gc.sum(x[None] > x[:, None], dim=1) < 2, x, 0)"
    ),
    **dict.fromkeys(("sort", "argsort"), _RANK),
    "delay": "x[t - 1]",
    "last": "x[t.last]",
    "first": "x[t.first]",
    "unfold": "gc.stack([x[t - k] for k in range(3)])",
    **dict.fromkeys(("scan", "associative_scan", "fori_loop", "while_loop"), _LOOP),
    "vmap": 'an axis: what is computed of g.input("x", (3,), over=n) is computed at each of its points',
    **dict.fromkeys(("cond", "switch"), "gc.where(condition, then, otherwise)"),
    **dict.fromkeys(("embed", "lookup"), "gc.embedding(table, index)"),
    **dict.fromkeys(
        ("gather", "take", "index_select"), "gc.embedding(table, index), or along an axis x[t.at(position)]"
    ),
    "take_along_axis": "x[t.at(position)]; in the event gc.sum(x * gc.one_hot(index, 3)), where 3 is the length of x",
    **dict.fromkeys(("attention", "scaled_dot_product_attention", "MultiheadAttention"), _ATTENTION),
    "tril": "A * np.tril(np.ones((3, 3)))",
    "triu": "A * np.triu(np.ones((3, 3)))",
    "diag": "x[:, None] * np.eye(3), or for the diagonal of a matrix gc.sum(A * np.eye(3), dim=1)",
    "diagonal": "gc.sum(A * np.eye(3), dim=1)",
    "trace": "gc.sum(A * np.eye(3))",
    **dict.fromkeys(("concatenate", "cat", "hstack", "append"), "gc.concat([x, y])"),
    "vstack": "gc.stack([x, y])",
    **dict.fromkeys(("unstack", "unbind"), "a, b = x"),
    **dict.fromkeys(("chunk", "array_split"), "gc.split(x, 2)"),
    "tile": "gc.concat([x, x])",
    **dict.fromkeys(("repeat", "repeat_interleave"), "gc.concat([x, x]), or gc.stack([x, x], -1).reshape(-1)"),
    **dict.fromkeys(("broadcast_to", "expand"), "x[None] + np.zeros((2, 1))"),
    "pad": "gc.concat([np.zeros(2), x])",
    "squeeze": "x[0], where the dimension has length 1",
    **dict.fromkeys(("detach", "no_grad"), "gc.stop_gradient(x)"),
    "masked_fill": "gc.where(mask, -np.inf, x)",
    **dict.fromkeys(("movedim", "moveaxis"), "gc.transpose(x, 1, 0)"),
    **dict.fromkeys(("inv", "inverse", "solve", "pinv"), _ELIMINATION),
    **dict.fromkeys(("expm", "matrix_exp"), _SERIES),
    "kron": 'gc.einsum("ij,kl->ikjl", A, B).reshape(6, 6)',
    "bilinear": 'gc.einsum("i,kij,j->k", x, W, y)',
    "lerp": "x + w * (y - x)",
    **dict.fromkeys(("complex", "real", "imag", "conj", "polar"), _PAIR),
    "requires_grad": "g.param(…, trainable=True)",
    "std": "gc.sqrt(gc.var(x))",
    "norm": "gc.sqrt(gc.sum(x * x))",
    "round": "gc.floor(x + 0.5)",
    "ceil": "-gc.floor(-x)",
    "trunc": "gc.sign(x) * gc.floor(gc.abs(x))",
    "rsqrt": "1 / gc.sqrt(x)",
    "reciprocal": "1 / x",
    "exp2": "2 ** x",
    "log2": "gc.log(x) / np.log(2)",
    "log10": "gc.log(x) / np.log(10)",
    "tan": "gc.sin(x) / gc.cos(x)",
    "sinh": "(gc.exp(x) - gc.exp(-x)) / 2",
    "cosh": "(gc.exp(x) + gc.exp(-x)) / 2",
    **dict.fromkeys(
        ("fft", "rfft"), "products with the parts of a constant matrix: F = np.fft.fft(np.eye(3)), F.real @ x"
    ),
    "heaviside": "gc.where(x > 0, 1.0, 0.0)",
    **dict.fromkeys(
        ("straight_through", "ste", "fake_quantize"),
        "x + gc.stop_gradient(gc.floor(x + 0.5) - x), or gc.custom_gradient",
    ),
    "hypot": "gc.sqrt(x * x + y * y)",
    **dict.fromkeys(("logcosh", "log_cosh"), "gc.abs(x) + gc.softplus(-2 * gc.abs(x)) - np.log(2)"),
    **dict.fromkeys(
        ("scatter", "scatter_add", "index_add"), "gc.outer(gc.one_hot(index, 5), v): v in one of five rows"
    ),
    "isnan": "x != x",
    "isinf": "gc.abs(x) == np.inf",
    "isfinite": "gc.abs(x) < np.inf",
    "any": "gc.sum(x) > 0",
    "all": "gc.sum(~x) == 0",
    "clamp": "gc.clip(x, low, high)",
    **dict.fromkeys(("relu6", "hardtanh", "hard_tanh"), "gc.clip(x, low, high)"),
    "swish": "gc.silu(x)",
    "softmin": "gc.softmax(-x)",
    "selu": "1.0507009873554805 * gc.elu(x, 1.6732632423543772)",
    **dict.fromkeys(("softshrink", "soft_threshold"), "gc.sign(x) * gc.relu(gc.abs(x) - 0.5)"),
    "mish": "x * gc.tanh(gc.softplus(x))",
    "softsign": "x / (1 + gc.abs(x))",
    "logit": "gc.log(x / (1 - x))",
    "glu": "a * gc.sigmoid(b), where a, b = gc.split(x, 2)",
    **dict.fromkeys(("normalize", "l2_normalize"), "x / gc.sqrt(gc.sum(x * x) + 1e-12)"),
    **dict.fromkeys(("layer_norm", "LayerNorm"), "gc.standardize(x), and scale and shift it"),
    **dict.fromkeys(("instance_norm", "group_norm"), "gc.standardize(x, dim=(1, 2))"),
    "RMSNorm": "gc.rms_norm(x)",
    **dict.fromkeys(("linear", "dense", "Linear", "Dense"), 'g.param("W", (8, 3)) @ x + g.param("b", (8,))'),
    "optimizer": "gc.optim.Adam(lr=1e-3)",
    **dict.fromkeys(("mse", "mse_loss"), "gc.mean(gc.square(x - y))"),
    **dict.fromkeys(("l1_loss", "mae"), "gc.mean(gc.abs(x - y))"),
    **dict.fromkeys(("huber_loss", "smooth_l1_loss"), "gc.where(gc.abs(d) < 1, 0.5 * d**2, gc.abs(d) - 0.5)"),
    "gumbel_softmax": "gc.softmax(x - gc.log(-gc.log(u))), where u = gc.random(seed, (t, n), (3,))",
    **dict.fromkeys(
        ("multinomial", "categorical"),
        "gc.argmax(x - gc.log(-gc.log(u))) of logits x, where u = gc.random(seed, (t, n), (3,))",
    ),
    "bernoulli": "gc.random(seed, (t, n), (3,)) < p",
    **dict.fromkeys(("rand", "rand_like", "uniform"), "gc.random(seed, (t, n), (3,))"),
    **dict.fromkeys(("randn", "randn_like", "normal"), _NORMAL),
    "nll_loss": "gc.cross_entropy(logits, label)",
    **dict.fromkeys(("binary_cross_entropy_with_logits", "sigmoid_cross_entropy"), "gc.softplus(x) - y * x"),
    "binary_cross_entropy": "gc.softplus(x) - y * x, of the x that p = gc.sigmoid(x) is made of",
    "kl_div": "gc.sum(p * (gc.log(p) - gc.log(q)))",
    "cosine_similarity": "x @ y / gc.sqrt((x @ x) * (y @ y))",
    "amax": "gc.max(x)",
    "amin": "gc.min(x)",
}

OPTIONS = {**dict.fromkeys(("cuda", "gpu"), 'target="cuda"'), "grad": 'gc.compile(gc.grad(g, "loss"))'}


class Symbolic:
    """What a value is not: a number, a sequence of numbers, an array."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        raise GraphError(
            "a value has no truth value while the graph is built; use gc.where(condition, then, otherwise), & | ~ in "
            "place of and, or, not, and gc.maximum in place of max"
        )

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise GraphError(f"numpy {NO_ARRAY}")

    def __len__(self) -> NoReturn:
        raise ProtocolError(
            "a value has no len; x.shape is the shape of its event, and gc.length(t) the number of points of an axis"
        )

    def __float__(self) -> NoReturn:
        raise ProtocolError(f"float and the functions of math take numbers; gc.exp(x) computes on values, and {_CALL}")

    def __int__(self) -> NoReturn:
        raise ProtocolError(f'int takes numbers; gc.cast(x, "int32") computes on values, and {_CALL}')

    def __round__(self, *_: object) -> NoReturn:
        raise ProtocolError("round takes numbers; gc.floor(x + 0.5) computes on values, and its derivative is 0")

    @classmethod
    def __torch_function__(cls, function: Callable[..., object], *_: object) -> NoReturn:
        name = function.__name__
        raise GraphError(f"torch.{name} {NO_ARRAY}")

    def __index__(self) -> NoReturn:
        raise ProtocolError(
            "a value is no index of a list or an array; gc.embedding(table, x) is the row of a table that it names"
        )

    if not TYPE_CHECKING:  # else every attribute would have a type

        def __getattr__(self, name: str) -> NoReturn:
            kind = type(self).__name__
            if name.startswith("_"):  # a question of Python's, a notebook's or a library's, not of the user's
                raise AttributeError(f"{kind!r} object has no attribute {name!r}")
            known = [*dir(type(self)), *dir(sys.modules["graphc"])]
            raise MissingAttributeError(f"a {kind.lower()} has no attribute {name!r}{_advice(name, known)}")


def missing_function(name: str) -> str:
    """The message about a function that graphc does not have."""
    public = sys.modules["graphc"]
    place = "" if name in INSTEAD else _elsewhere(name)
    return f"module 'graphc' has no attribute {name!r}{place or _advice(name, dir(public))}"


def missing_in(module: ModuleType, name: str) -> AttributeError:
    """The error about a name that one of graphc's modules does not have; it may have it in other letters."""
    if name.startswith("_"):
        return AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    short, there = module.__name__.replace("graphc", "gc"), {other.lower(): other for other in module.__all__}
    found = there.get(name.lower().replace("_", "")) or there.get(name.lower())
    hint = f"; write {short}.{found}" if found else _advice(name, list(module.__all__))
    return MissingAttributeError(f"{short} has no {name!r}{hint}")


def _elsewhere(name: str) -> str:
    """Where it is, if it is a method of values or graphs, or in a module below: as Adam is in gc.optim."""
    public = sys.modules["graphc"]
    for owner, kind in (("x", public.Value), ("g", public.Graph)):
        if name in dir(kind):
            return f"; write {owner}.{name}{'(…)' if callable(getattr(kind, name)) else ''}"
    for module in (public.cells, public.layers, public.optim):
        made = sorted(known for known, thing in vars(module).items() if callable(thing) and _is_of(thing, module))
        there = {known.lower(): known for known in made if not known.startswith("_")}  # of LSTM and lstm, the function
        if name.lower() in there:
            return f"; write {module.__name__.replace('graphc', 'gc')}.{there[name.lower()]}(…)"
    return ""


def _is_of(thing: object, module: ModuleType) -> bool:
    return getattr(thing, "__module__", "").startswith(module.__name__)


def _advice(name: str, known: list[str]) -> str:
    """What to write instead, and if nothing is known, which name is like it."""
    if name in INSTEAD:
        return f"; write {INSTEAD[name]}"
    public = sys.modules["graphc"]
    if name in dir(public) and inspect.isfunction(getattr(public, name)):
        return f"; write gc.{name}(x, …)"
    if name in dir(np):  # no misspelling, but something that graphc does not have
        return ""
    classes = name[0].isupper()  # a name in small letters is no class
    return meant(name, [other for other in known if other[0].islower() or (classes and other[0].isupper())], 0.75)


def by_known_names(function: Callable[P, R]) -> Callable[P, R]:
    """A function that says which options it takes where it is given one that it has not."""
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        for name in options:
            if name not in names:
                hint = OPTIONS.get(name, "")
                near = f"; write {hint}" if hint else meant(name, names)
                raise ProtocolError(f"gc.{function.__name__} takes no {name}=; it takes {', '.join(names)}{near}")
        return function(*args, **options)

    return checked


def by_dim(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function that takes `dim=`: it says so when it is given numpy's `axis=` instead, or an axis."""
    names = list(inspect.signature(function).parameters)
    place, over = names.index("dim"), "over" in names

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        if "axis" in options:
            axes = ", and axes, such as time, by over=t" if over else ""
            raise ProtocolError(f"gc.{function.__name__} takes no axis=; dimensions of the event go by dim=0{axes}")
        dim = args[place] if len(args) > place else options.get("dim")
        if isinstance(dim, Axis):
            axes = f"; axes are named by over=, gc.{function.__name__}(x, over={dim.name})" if over else ""
            raise ShapeError(f"dim= takes event dimensions, such as dim=0{axes}. Got {dim!r}")
        return function(*args, **options)

    return checked
