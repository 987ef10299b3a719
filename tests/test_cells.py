"""Every cell against a plain numpy loop: outputs, gradients by central differences, reverse runs, carried state.

The comparison with PyTorch is in test_cells_torch.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.cells import Hidden
from graphc.errors import GraphError
from graphc.language.graph import declared_arrays

Arrays = dict[str, np.ndarray]
Step = Callable[[Mapping[str, np.ndarray], np.ndarray, Arrays], Arrays]
T, N, I, H = 5, 2, 3, 4


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


def affine(p: Mapping[str, np.ndarray], k: str, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    return x @ p[f"W_{k}"].T + h @ p[f"U_{k}"].T + p[f"b_{k}"]


def elman(p, x, s):
    return {"h": np.tanh(affine(p, "h", x, s["h"]))}


def indrnn(p, x, s):
    return {"h": np.maximum(x @ p["W_h"].T + p["u_h"] * s["h"] + p["b_h"], 0)}


def jordan(p, x, s):
    h = np.tanh(affine(p, "h", x, s["y"]))
    return {"y": sigmoid(h @ p["W_y"].T + p["b_y"])}


def lstm(p, x, s):
    f, i, o = (sigmoid(affine(p, k, x, s["h"])) for k in "fio")
    c = f * s["c"] + i * np.tanh(affine(p, "g", x, s["h"]))
    return {"h": o * np.tanh(c), "c": c}


def projected_lstm(p, x, s):
    wide = lstm(p, x, s)
    return {"h": wide["h"] @ p["P"].T, "c": wide["c"]}


def peephole_lstm(p, x, s):
    f, i = (sigmoid(affine(p, k, x, s["h"]) + p[f"p_{k}"] * s["c"]) for k in "fi")
    c = f * s["c"] + i * np.tanh(affine(p, "g", x, s["h"]))
    o = sigmoid(affine(p, "o", x, s["h"]) + p["p_o"] * c)
    return {"h": o * np.tanh(c), "c": c}


def layer_norm_lstm(p, x, s):
    def normalised(k, a):
        scaled = (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5)
        return p[f"gain_{k}"] * scaled + p[f"b_{k}"]

    f, i, g, o = (normalised(k, x @ p[f"W_{k}"].T + s["h"] @ p[f"U_{k}"].T) for k in "figo")
    c = sigmoid(f) * s["c"] + sigmoid(i) * np.tanh(g)
    return {"h": sigmoid(o) * np.tanh(normalised("c", c)), "c": c}


def slstm(p, x, s):
    """Without the stabiliser: the true memory is c · e^m, and so is the normaliser."""
    f, o = (sigmoid(affine(p, k, x, s["h"])) for k in "fo")
    i = np.exp(affine(p, "i", x, s["h"]))
    m = np.maximum(np.log(f) + s["m"], np.log(i))
    c = f * s["c"] * np.exp(s["m"]) + i * np.tanh(affine(p, "g", x, s["h"]))
    n = f * s["n"] * np.exp(s["m"]) + i
    return {"h": o * c / n, "c": c / np.exp(m), "n": n / np.exp(m), "m": m}


def gru(p, x, s, reset="before", update="new"):
    h = s["h"]
    r, z = (sigmoid(affine(p, k, x, h)) for k in "rz")
    if reset == "before":
        n = np.tanh(affine(p, "n", x, r * h))
    else:
        n = np.tanh(x @ p["W_n"].T + p["b_n"] + r * (h @ p["U_n"].T + p["c_n"]))
    return {"h": (1 - z) * h + z * n if update == "new" else (1 - z) * n + z * h}


def mgu(p, x, s):
    f = sigmoid(affine(p, "f", x, s["h"]))
    return {"h": (1 - f) * s["h"] + f * np.tanh(affine(p, "n", x, f * s["h"]))}


def ugrnn(p, x, s):
    keep = sigmoid(affine(p, "g", x, s["h"]))
    return {"h": keep * s["h"] + (1 - keep) * np.tanh(affine(p, "n", x, s["h"]))}


def min_gru(p, x, s):
    z = sigmoid(x @ p["W_z"].T + p["b_z"])
    return {"h": (1 - z) * s["h"] + z * (x @ p["W_n"].T + p["b_n"])}


def min_lstm(p, x, s):
    f, i = (sigmoid(x @ p[f"W_{k}"].T + p[f"b_{k}"]) for k in "fi")
    return {"h": f / (f + i) * s["h"] + i / (f + i) * (x @ p["W_n"].T + p["b_n"])}


def heads(p, k, x, size=2):
    return (x @ p[f"W_{k}"].T).reshape(len(x), size, -1)


def mlstm(p, x, s):
    """Without the stabiliser: the true memory is C · e^m, and so is the normaliser."""
    q, k, v = heads(p, "q", x), heads(p, "k", x) / np.sqrt(H / 2), heads(p, "v", x)
    q, k, v = (a + p[f"b_{letter}"].reshape(2, -1) for a, letter in ((q, "q"), (k, "k"), (v, "v")))
    i, f = np.exp(x @ p["W_i"].T + p["b_i"]), sigmoid(x @ p["W_f"].T + p["b_f"])
    m = np.maximum(np.log(f) + s["m"], np.log(i))
    C = (f * np.exp(s["m"]))[..., None, None] * s["C"] + i[..., None, None] * np.einsum("nhi,nhj->nhij", v, k)
    n = (f * np.exp(s["m"]))[..., None] * s["n"] + i[..., None] * k
    read = np.einsum("nhij,nhj->nhi", C, q) / np.maximum(np.abs((n * q).sum(-1)), 1)[..., None]
    o = sigmoid(x @ p["W_o"].T + p["b_o"])
    scaled = {"C": C / np.exp(m)[..., None, None], "n": n / np.exp(m)[..., None], "m": m}
    return {"h": o * read.reshape(len(x), -1), **scaled}


def delta_net(p, x, s, gated=True):
    q, k = (a / np.sqrt((a * a).sum(-1, keepdims=True) + 1e-6) for a in (heads(p, "q", x), heads(p, "k", x)))
    rate = sigmoid(x @ p["W_beta"].T + p["b_beta"])[..., None, None]
    decay = np.exp(-np.exp(p["a"]) * np.log1p(np.exp(x @ p["W_alpha"].T + p["b_alpha"]))) if gated else np.ones((1, 2))
    erased = np.eye(H // 2) - rate * np.einsum("nhi,nhj->nhij", k, k)
    S = decay[..., None, None] * s["S"] @ erased + rate * np.einsum("nhi,nhj->nhij", heads(p, "v", x), k)
    return {"h": np.einsum("nhij,nhj->nhi", S, q).reshape(len(x), -1), "S": S}


def gla(p, x, s):
    keep = sigmoid(x @ p["W_alpha"].T + p["b_alpha"]) ** (1 / 16)
    q, k, v = (heads(p, letter, x) for letter in "qkv")
    S = s["S"] * keep.reshape(len(x), 2, 1, -1) + v[..., None] * k[..., None, :]
    return {"h": np.einsum("nhij,nhj->nhi", S, q).reshape(len(x), -1) / np.sqrt(H / 2), "S": S}


def rwkv7(p, x, s):
    r, k, v = (heads(p, letter, x) for letter in "rkv")
    w, a = (sigmoid(x @ p[f"W_{c}"].T + p[f"b_{c}"]).reshape(len(x), 2, -1) for c in "wa")
    removed = k * p["xi"].reshape(2, -1)
    removed = removed / np.sqrt((removed * removed).sum(-1, keepdims=True) + 1e-12)
    transition = np.exp(-w / np.sqrt(np.e))[..., None] * np.eye(H // 2)
    transition = transition - np.einsum("nhi,nhj->nhij", removed, a * removed)
    S = s["S"] @ transition + np.einsum("nhi,nhj->nhij", v, k * (1 + p["alpha"].reshape(2, -1) * (a - 1)))
    return {"h": np.einsum("nhij,nhj->nhi", S, r).reshape(len(x), -1), "S": S}


def rg_lru(p, x, s):
    r, i = (sigmoid(x @ p[f"W_{k}"].T + p[f"b_{k}"]) for k in "ri")
    keep = sigmoid(p["a"]) ** (8 * r)
    return {"h": keep * s["h"] + np.sqrt(1 - keep**2) * i * (x @ p["W_n"].T + p["b_n"])}


def selective_ssm(p, x, s):
    u = x @ p["W_u"].T + p["b_u"]
    u = u * sigmoid(u)
    delta = np.log1p(np.exp(u @ (p["W_delta"] @ p["W_r"]).T + p["b_delta"]))[..., None]
    S = np.exp(-delta * np.exp(p["a"])) * s["S"] + delta * u[..., None] * (u @ p["W_B"].T)[:, None]
    return {"h": np.einsum("nij,nj->ni", S, u @ p["W_C"].T) + p["d"] * u, "S": S}


def lem(p, x, s):
    a, b = (sigmoid(affine(p, k, x, s["h"])) for k in "ab")
    z = (1 - a) * s["z"] + a * np.tanh(affine(p, "z", x, s["h"]))
    return {"h": (1 - b) * s["h"] + b * np.tanh(affine(p, "h", x, z)), "z": z}


def cornn(p, x, s):
    force = np.tanh(affine(p, "h", x, s["h"]) + s["z"] @ p["U_z"].T)
    z = s["z"] + 0.05 * (force - 2 * s["h"] - 5 * s["z"])
    return {"h": s["h"] + 0.05 * z, "z": z}


CELLS: dict[str, tuple[Any, Step]] = {
    name: (getattr(gc.cells, name), step)
    for name, step in (
        ("elman", elman),
        ("indrnn", indrnn),
        ("lstm", lstm),
        ("peephole_lstm", peephole_lstm),
        ("layer_norm_lstm", layer_norm_lstm),
        ("slstm", slstm),
        ("mgu", mgu),
        ("ugrnn", ugrnn),
        ("min_gru", min_gru),
        ("min_lstm", min_lstm),
        ("rg_lru", rg_lru),
        ("lem", lem),
        ("cornn", cornn),
    )
} | {
    "jordan": (functools.partial(gc.cells.jordan, outputs=2), jordan),
    "projected_lstm": (functools.partial(gc.cells.projected_lstm, outputs=2), projected_lstm),
    "mlstm": (functools.partial(gc.cells.mlstm, heads=2), mlstm),
    "gla": (functools.partial(gc.cells.gla, heads=2), gla),
    "rwkv7": (functools.partial(gc.cells.rwkv7, heads=2), rwkv7),
    "selective_ssm": (functools.partial(gc.cells.selective_ssm, states=3, rank=2), selective_ssm),
    "gated_delta_net": (functools.partial(gc.cells.delta_net, heads=2), delta_net),
    "delta_net": (
        functools.partial(gc.cells.delta_net, heads=2, gated=False),
        functools.partial(delta_net, gated=False),
    ),
    **{
        f"gru_{reset}_{update}": (
            functools.partial(gc.cells.gru, reset=reset, update=update),
            functools.partial(gru, reset=reset, update=update),
        )
        for reset in ("before", "after")
        for update in ("new", "old")
    },
}
every_cell = pytest.mark.parametrize("name", CELLS)


SHAPES = {
    "jordan y": (2,),
    "projected_lstm h": (2,),
    "mlstm C": (2, 2, 2),
    "mlstm n": (2, 2),
    "mlstm m": (2,),
    "selective_ssm S": (H, 3),
}


def states_of(name: str) -> dict[str, tuple[int, ...]]:
    """The names of a cell's states and their shapes."""
    letters = {"jordan": "y", "lem": "hz", "cornn": "hz", "slstm": "hcnm", "mlstm": "Cnm", "min_lstm": "h"}
    letters |= dict.fromkeys(("delta_net", "gated_delta_net", "gla", "rwkv7", "selective_ssm"), "S")
    own = letters.get(name, "hc" if "lstm" in name else "h")
    return {k: SHAPES.get(f"{name} {k}", (2, 2, 2) if k == "S" else (H,)) for k in own}


def outputs_of(name: str) -> dict[str, tuple[int, ...]]:
    """The states, and h where that is none."""
    return states_of(name) if name == "jordan" else {"h": (H,), **states_of(name)}


def build(name: str, initial: bool = True, loss: bool = True, **options: Any) -> gc.Graph:
    """One cell over (t, n): its states and its output as outputs, and a weighted sum of them as the loss."""
    g = gc.Graph("one", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (I,), over=(t, n))
    if initial:
        options["initial"] = {k: g.input(f"{k}0", shape, over=n) for k, shape in states_of(name).items()}
    cell = CELLS[name][0](g, x, H, over=t, name="cell", **options)
    total = gc.sum(x) * 0
    for k, shape in outputs_of(name).items():
        g.output(k, getattr(cell, k))
        if loss:
            total = total + gc.sum(getattr(cell, k) * g.input(f"weight_{k}", shape, over=(t, n)))
    if loss:
        g.output("loss", gc.sum(total, over=(t, n)))
    return g


def arrays_for(g: gc.Graph, seed: int = 0, t: int = T) -> Arrays:
    """Random params, inputs and positive initial states (the normaliser of slstm is positive)."""
    rng = np.random.default_rng(seed)
    lengths = {"t": t, "n": N}
    nodes = declared_arrays(g)
    shapes = {k: (*(lengths[a.name] for a in node.axes), *node.shape) for k, node in nodes.items()}
    drawn = {k: rng.normal(size=shape) * (0.5 if k in g.params else 1) for k, shape in shapes.items()}
    return {k: np.abs(a) if k == "n0" else a for k, a in drawn.items()}


def numpy_run(name: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    step = CELLS[name][1]
    p = {k.removeprefix("cell_"): a for k, a in arrays.items() if k.startswith("cell_")}
    x = arrays["x"]
    states = {k: arrays.get(f"{k}0", np.zeros((N, *shape))) for k, shape in states_of(name).items()}
    history = []
    for t in range(len(x)):
        states = step(p, x[t], states)
        history.append(states)
    return {k: np.stack([s[k] for s in history]) for k in states}


def run(g: gc.Graph, **arrays: np.ndarray) -> Arrays:
    """The interpreter's results, which the compiled function must reproduce."""
    expected = gc.interpret(g, **arrays)
    found = gc.compile(g)(**arrays)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-10, atol=1e-12, err_msg=key)
    return expected


@every_cell
def test_outputs_and_gradients_are_those_of_a_numpy_loop(name: str) -> None:
    g = build(name)
    arrays = arrays_for(g)
    moved = [k for k in arrays if not k.startswith("weight")]
    found = run(gc.grad(g, "loss", wrt=moved), **arrays)
    for k, expected in numpy_run(name, arrays).items():
        np.testing.assert_allclose(found[k], expected, rtol=1e-11, atol=1e-13)

    def loss(**changed: np.ndarray) -> float:
        outputs = numpy_run(name, {**arrays, **changed})
        return float(sum((a * arrays[f"weight_{k}"]).sum() for k, a in outputs.items()))

    rng = np.random.default_rng(1)
    for k in moved:
        direction = rng.normal(size=arrays[k].shape)
        step = 1e-6 * direction
        slope = (loss(**{k: arrays[k] + step}) - loss(**{k: arrays[k] - step})) / 2e-6
        assert (found[f"grad_{k}"] * direction).sum() == pytest.approx(slope, rel=2e-7, abs=2e-7), k


@every_cell
def test_every_cell_prints_and_reads_back(name: str) -> None:
    g = build(name)
    assert gc.parse(str(g)) == g


@every_cell
def test_reverse_is_the_flipped_sequence(name: str) -> None:
    forward, backward = build(name, loss=False), build(name, loss=False, reverse=True)
    arrays = arrays_for(forward)
    expected = gc.interpret(forward, **{**arrays, "x": arrays["x"][::-1]})
    found = run(backward, **arrays)
    for k in expected:
        np.testing.assert_allclose(found[k], expected[k][::-1], rtol=1e-12, atol=1e-14)


@every_cell
def test_a_run_goes_on_from_the_states_it_was_left_with(name: str) -> None:
    g = build(name, loss=False)
    whole = arrays_for(g)
    first = gc.interpret(g, **{**whole, "x": whole["x"][:2]})
    left = {f"{k}0": first[k][-1] for k in states_of(name)}
    second = gc.interpret(g, **{**whole, **left, "x": whole["x"][2:]})
    for k, expected in gc.interpret(g, **whole).items():
        np.testing.assert_array_equal(np.concatenate([first[k], second[k]]), expected)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["lstm", "gru_before_new"])
def test_a_restart_begins_a_new_sequence(name: str, reverse: bool) -> None:
    g = gc.Graph("packed", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    x, flag = g.input("x", (I,), over=(t, n)), g.input("flag", (), over=t, dtype="bool")
    cell = CELLS[name][0](g, x, H, over=t, name="cell", restart=flag, initial=0.5, reverse=reverse)
    g.output("h", cell.h)
    g.output("loss", gc.sum(gc.sum(cell.h * cell.h), over=(t, n)))
    arrays = arrays_for(g)
    starts = np.array([False, False, True, False, False])
    parts = (slice(0, 2), slice(2, 5)) if not reverse else (slice(0, 3), slice(3, 5))
    found = run(gc.grad(g, "loss"), **{**arrays, "flag": starts})
    alone = build(name, loss=False, reverse=reverse)
    half = {f"{k}0": np.full((N, *shape), 0.5) for k, shape in states_of(name).items()}
    params = {k: a for k, a in arrays.items() if k in g.params}
    pieces = [gc.interpret(alone, x=arrays["x"][p], **half, **params)["h"] for p in parts]
    np.testing.assert_allclose(found["h"], np.concatenate(pieces), rtol=1e-12)


def test_both_directions_restart_at_the_same_borders() -> None:
    g = gc.Graph("packed", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    x, flag = g.input("x", (I,), over=(t, n)), g.input("flag", (), over=t, dtype="bool")
    cell = gc.cells.bidirectional(g, x, gc.cells.gru, H, over=t, restart=flag, initial=(0.5, {"h": -0.5}))
    g.output("h", cell.h)
    arrays = arrays_for(g)
    whole = run(g, **{**arrays, "flag": np.array([False, False, True, False, False])})["h"]
    for part in (slice(0, 2), slice(2, 5)):
        alone = {**arrays, "x": arrays["x"][part], "flag": np.zeros(part.stop - part.start, bool)}
        np.testing.assert_allclose(whole[part], gc.interpret(g, **alone)["h"], rtol=1e-12)


@every_cell
def test_without_biases_a_cell_is_one_whose_biases_are_zero(name: str) -> None:
    whole, bare = build(name), build(name, bias=False)
    gone = [param for param in whole.params if param not in bare.params]
    assert gone == [param for param in whole.params if param.startswith(("cell_b_", "cell_c_"))]
    arrays = arrays_for(bare)
    expected = gc.interpret(whole, **arrays, **{param: np.zeros(whole.params[param].node.shape) for param in gone})
    for key, value in gc.interpret(bare, **arrays).items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-12, err_msg=key)


def test_params_have_the_names_and_shapes_of_the_interface() -> None:
    def shapes(add: Any, **options: Any) -> dict[str, tuple[int, ...]]:
        g = gc.Graph("names")
        t = g.axis("t")
        add(g, g.input("x", (I,), over=t), units=H, over=t, **options)
        return {name: p.node.shape for name, p in g.params.items()}

    def gates(name: str, letters: str) -> dict[str, tuple[int, ...]]:
        kinds = (("W", (H, I)), ("U", (H, H)), ("b", (H,)))
        return {f"{name}_{kind}_{k}": shape for k in letters for kind, shape in kinds}

    assert shapes(gc.cells.lstm) == gates("lstm", "figo")
    assert list(shapes(gc.cells.lstm)) == list(gates("lstm", "figo"))
    assert shapes(gc.cells.lstm, name="a") == gates("a", "figo")
    assert shapes(gc.cells.gru) == gates("gru", "rzn")
    assert shapes(gc.cells.gru, reset="after") == {**gates("gru", "rzn"), "gru_c_n": (H,)}
    assert shapes(gc.cells.elman) == gates("elman", "h")
    both = shapes(gc.cells.bidirectional, cell=gc.cells.mgu, name="m")
    assert both == {**gates("m_forward", "fn"), **gates("m_backward", "fn")}
    deep = shapes(gc.cells.stack, cell=gc.cells.elman, layers=2)
    assert list(deep) == [*gates("stack_0", "h"), *gates("stack_1", "h")]


@pytest.mark.parametrize("axes", ["t", "tn", "nt", "ktn", "n"])
def test_the_states_vary_over_the_axes_of_x_in_their_order(axes: str) -> None:
    """One copy at each point of the other axes; an x that does not vary over t is read at every step."""
    g = gc.Graph("axes", dtype="float64")
    named = {a: g.axis(a, 2) for a in "ktn"}
    h = gc.cells.lstm(g, g.input("x", (I,), over=[named[a] for a in axes]), H, over=named["t"]).h
    g.output("h", h)
    order = axes if "t" in axes else "t" + axes
    assert "".join(a.name for a in h.axes) == order
    params = gc.initialize(g)
    x = np.random.default_rng(0).normal(size=(2,) * len(axes) + (I,))
    found = np.moveaxis(run(g, x=x, **params)["h"], order.index("t"), 0)
    steps = np.moveaxis(x, axes.index("t"), 0) if "t" in axes else np.stack([x, x])
    p = {k.removeprefix("lstm_"): a for k, a in params.items()}
    s = {"h": np.zeros((*steps.shape[1:-1], H)), "c": np.zeros((*steps.shape[1:-1], H))}
    for k in range(2):
        s = lstm(p, steps[k], s)
        np.testing.assert_allclose(found[k], s["h"], rtol=1e-11)


def test_a_stack_of_both_directions_reads_the_layer_below() -> None:
    g = gc.Graph("deep", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    cell = functools.partial(gc.cells.bidirectional, cell=gc.cells.elman)
    deep = gc.cells.stack(g, g.input("x", (I,), over=(t, n)), cell, H, 2, over=t, name="deep")
    g.output("h", deep.h)
    arrays = arrays_for(g)

    def layer(x: np.ndarray, prefix: str) -> np.ndarray:
        p = {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
        h, history = {"h": np.zeros((N, H))}, []
        for step in x:
            h = elman(p, step, h)
            history.append(h["h"])
        return np.stack(history)

    x = arrays["x"]
    for k in range(2):
        forward, backward = layer(x, f"deep_{k}_forward_"), layer(x[::-1], f"deep_{k}_backward_")[::-1]
        x = np.concatenate([forward, backward], -1)
    np.testing.assert_allclose(run(g, **arrays)["h"], x, rtol=1e-11)


def test_a_stack_takes_a_cell_of_the_users_own_and_drops_between_layers_only() -> None:
    def doubled(g: gc.Graph, x: gc.Value, units: int, over: Any, name: str) -> Hidden:
        h = g.state(f"{name}_h", x.shape, over=x.axes)
        h[over] = 2 * x
        return Hidden(h)

    def through(**options: Any) -> np.ndarray:
        g = gc.Graph("own", dtype="float64")
        t, n = g.axis("t"), g.axis("n")
        x = g.input("x", (I,), over=(t, n))
        g.output("h", gc.cells.stack(g, x, doubled, I, over=t, **options).h)
        return run(g, x=np.ones((20, 5, I)))["h"]

    np.testing.assert_array_equal(through(layers=3), np.full((20, 5, I), 8.0))
    np.testing.assert_array_equal(through(layers=1, dropout=0.5), np.full((20, 5, I), 2.0))
    twice = through(layers=3, dropout=0.5, seed=3)
    assert set(np.unique(twice)) == {0.0, 32.0}
    assert 0.1 < (twice > 0).mean() < 0.4  # both of two independent draws keep a quarter
    assert (twice != through(layers=3, dropout=0.5, seed=4)).any()


@pytest.mark.parametrize("forget", [-2000.0, 0.0, 2000.0])
@pytest.mark.parametrize("write", [-2000.0, 0.0, 2000.0])
@pytest.mark.parametrize("name", ["slstm", "mlstm", "min_lstm"])
def test_gates_far_from_zero_have_numbers_for_results_and_gradients(name: str, write: float, forget: float) -> None:
    g = build(name, initial=False)
    arrays = arrays_for(g)
    gates = arrays["cell_b_i"].shape
    far = {**arrays, "cell_b_i": np.full(gates, write), "cell_b_f": np.full(gates, forget)}
    moved = [k for k in arrays if not k.startswith("weight")]
    found = run(gc.select(gc.grad(g, "loss", moved), "h", *(f"grad_{k}" for k in moved)), **far)
    for k, array in found.items():
        assert np.isfinite(array).all(), k


@pytest.mark.parametrize("gate", [-2000.0, 2000.0])
def test_a_unit_that_keeps_all_or_nothing_has_gradients(gate: float) -> None:
    g = build("rg_lru", initial=False)
    arrays = {**arrays_for(g), "cell_b_r": np.full(H, gate), "cell_a": np.array([-2000.0, -1.0, 1.0, 2000.0])}
    for k, array in run(gc.grad(g, "loss", [k for k in arrays if not k.startswith("weight")]), **arrays).items():
        assert np.isfinite(array).all(), k


def test_the_stabiliser_of_mlstm_moves_nothing_at_zero() -> None:
    """Where x is 0, so is m, and both ways to write the fraction meet."""
    g = gc.Graph("one", dtype="float64")
    t = g.axis("t")
    cell = gc.cells.mlstm(g, g.input("x", (I,), over=t), H, over=t, name="cell")
    g.output("loss", gc.sum(gc.sum(cell.h), over=t))
    arrays = {**gc.initialize(g), "x": np.zeros((1, I))}
    for k in "qkv":
        arrays[f"cell_b_{k}"] = np.full(H, 0.3)
    slope = run(gc.grad(g, "loss", ["cell_b_i"]), **arrays)["grad_cell_b_i"]
    ahead, behind = (gc.interpret(g, **{**arrays, "cell_b_i": np.array([s])})["loss"] for s in (1e-6, -1e-6))
    np.testing.assert_allclose(slope, [(ahead - behind) / 2e-6], rtol=1e-6)


def test_mistakes_are_refused_where_the_cell_is_made() -> None:
    g = gc.Graph("wrong")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (I,), over=(t, n))
    lstm_, gru_ = gc.cells.lstm, gc.cells.gru
    mistakes: list[tuple[str, Callable[[], Any]]] = [
        (r"reads a vector.*x\.reshape\(1\)", lambda: lstm_(g, x[0], H, over=t)),
        (r"reads a vector.*x\.reshape\(-1\)", lambda: lstm_(g, x.reshape(1, 3), H, over=t)),
        ("floating-point", lambda: lstm_(g, g.input("k", (1,), over=t, dtype="int32"), H, over=t)),
        ("at least one unit", lambda: lstm_(g, x, 0, over=t)),
        ("over one axis", lambda: lstm_(g, x, H, over=(t, n))),
        ("no state y; its states are h, c", lambda: lstm_(g, x, H, over=t, initial={"y": 0.0})),
        ("has events of shape", lambda: lstm_(g, x, H, over=t, initial=np.zeros(H + 1))),
        ("resets .before. or .after.", lambda: gru_(g, x, H, over=t, reset="never")),
        ("see also restart=", lambda: gru_(g, x, H, over=t, reset=x[0] > 0)),
        (".new. or the .old.", lambda: gru_(g, x, H, over=t, update="both")),
        ("no U_init", lambda: gc.cells.min_gru(g, x, H, over=t, U_init="zeros")),
        ("states= a whole number of at least 1, got 0", lambda: gc.cells.selective_ssm(g, x, H, over=t, states=0)),
        ("rank= a whole number of at least 1, got 2.0", lambda: gc.cells.selective_ssm(g, x, H, over=t, rank=2.0)),
        ("evenly among its heads, got 'two'", lambda: gc.cells.gla(g, x, H, over=t, heads="two")),
        ("4 units evenly among its heads, got 3", lambda: gc.cells.mlstm(g, x, H, over=t, heads=3)),
        ("at least one layer", lambda: gc.cells.stack(g, x, lstm_, H, 0, over=t)),
        ("one item a layer", lambda: gc.cells.stack(g, x, lstm_, H, 2, over=t, initial=[0.0])),
        ("a pair", lambda: gc.cells.bidirectional(g, x, lstm_, H, over=t, initial=[0.0])),
    ]
    for message, mistake in mistakes:
        with pytest.raises(GraphError, match=message) as error:
            mistake()
        assert "test_cells.py" in str(error.value)
    gc.cells.lstm(g, x, H, over=t, name="taken")
    with pytest.raises(GraphError, match="taken"):
        gc.cells.lstm(g, x, H, over=t, name="taken")


@pytest.mark.parametrize(("kind", "state"), [(gc.cells.jordan, "y"), (gc.cells.projected_lstm, "h")])
def test_by_default_there_are_as_many_outputs_as_units(kind: Any, state: str) -> None:
    g = gc.Graph("g")
    t = g.axis("t")
    assert getattr(kind(g, g.input("x", (2,), over=t), 3, over=t), state).shape == (3,)
