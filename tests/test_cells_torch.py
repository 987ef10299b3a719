"""The cells against PyTorch's LSTM, GRU and RNN in float64: outputs, final states, gradients, weights there and back.

Skipped, visibly, where PyTorch is not installed.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GraphError

torch = pytest.importorskip("torch")

Arrays = dict[str, np.ndarray]
T, N, I, H, P = 6, 3, 3, 4, 2
MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "elman": torch.nn.RNN}
CELLS = {
    "lstm": gc.cells.lstm,
    "gru": functools.partial(gc.cells.gru, reset="after", update="old"),
    "elman": gc.cells.elman,
}


def network(cell: str, layers: int, both: bool, ragged: bool, projection: int = 0) -> gc.Graph:
    """PyTorch's module as a graph: initial states are inputs, outputs and final states are outputs."""
    g = gc.Graph("network", dtype="float64")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32") if ragged else None)
    h = g.input("x", (I,), over=(t, n))
    add = functools.partial(gc.cells.projected_lstm, outputs=projection) if projection else CELLS[cell]
    finals: dict[str, list[gc.Value]] = {}
    for layer in range(layers):
        label = cell + (f"_{layer}" if layers > 1 else "")
        parts = []
        for reverse in range(1 + both):
            sizes = {"h": projection or H, **({"c": H} if cell == "lstm" else {})}
            initial = {k: g.input(f"{k}0_{layer}_{reverse}", (s,), over=n) for k, s in sizes.items()}
            name = label + (("_backward" if reverse else "_forward") if both else "")
            made = add(g, h, H, over=t, name=name, reverse=bool(reverse), initial=initial)
            parts.append(made.h)
            for k in sizes:
                finals.setdefault(k, []).append(getattr(made, k)[t.first if reverse else t.last])
        h = gc.concat(parts)
    g.output("y", h)
    loss = gc.sum(gc.sum(h * g.input("weight", h.shape, over=(t, n))), over=(t, n))
    for k, values in finals.items():
        final = gc.stack(values)
        g.output(k, final)
        loss = loss + gc.sum(gc.sum(final * g.input(f"weight_{k}", final.shape, over=n)), over=n)
    g.output("loss", loss)
    return g


def torch_run(cell: str, module: Any, arrays: Arrays) -> tuple[Arrays, Arrays]:
    """Outputs and gradients, named as the graph's."""
    given = {k: torch.tensor(a, requires_grad=a.dtype == np.float64) for k, a in arrays.items()}
    letters = "hc" if cell == "lstm" else "h"
    starts = {k: torch.stack([v for name, v in given.items() if name.startswith(f"{k}0_")]) for k in letters}
    state = (starts["h"], starts["c"]) if cell == "lstm" else starts["h"]
    x = given["x"]
    if "lengths" in given:
        x = torch.nn.utils.rnn.pack_padded_sequence(x, given["lengths"], enforce_sorted=False)
    y, finals = module(x, state)
    if "lengths" in given:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
    results = {"y": y, "h": finals[0] if cell == "lstm" else finals}
    if cell == "lstm":
        results["c"] = finals[1]
    # the graph's finals have the batch first, then one row for each layer and direction
    results = {k: v if k == "y" else v.transpose(0, 1) for k, v in results.items()}
    loss = (y * given["weight"]).sum() + sum((results[k] * given[f"weight_{k}"]).sum() for k in starts)
    loss.backward()
    gradients = {k: v.grad.numpy() for k, v in given.items() if v.grad is not None and not k.startswith("weight")}
    return {k: v.detach().numpy() for k, v in {**results, "loss": loss}.items()}, gradients


def weight_gradients(cell: str, module: Any) -> Arrays:
    """PyTorch's gradients by our names: each of two biases that are added has the gradient of their sum."""
    found = {}
    for k, p in module.named_parameters():
        found[k] = p.grad.numpy().copy()
        if k.startswith("bias_hh"):
            found[k][: 2 * H if cell == "gru" else None] = 0
    return gc.cells.from_torch(found, cell)


@pytest.mark.parametrize(
    ("layers", "both", "ragged"),
    [(1, False, False), (1, False, True), (1, True, True), (2, True, False), (2, True, True)],
)
@pytest.mark.parametrize("cell", CELLS)
def test_outputs_and_gradients_are_pytorchs(cell: str, layers: int, both: bool, ragged: bool) -> None:
    compare(cell, layers, both, ragged)


def test_a_projection_is_pytorchs_proj_size() -> None:
    compare("lstm", 1, True, True, projection=P)


def compare(cell: str, layers: int, both: bool, ragged: bool, projection: int = 0) -> None:
    torch.manual_seed(0)
    options = {"proj_size": projection} if projection else {}
    module = MODULES[cell](I, H, layers, bidirectional=both, **options).double()
    g = network(cell, layers, both, ragged, projection)
    rng = np.random.default_rng(0)
    lengths = {"t": T, "n": N}
    arrays: Arrays = {
        k: rng.normal(size=(*(lengths[a.name] for a in node.axes), *node.shape)) for k, node in g.inputs.items()
    }
    if ragged:
        arrays["lengths"] = np.array([4, T, 1], np.int32)
    params = gc.cells.from_torch(module.state_dict(), cell)
    expected, gradients = torch_run(cell, module, arrays)
    gradients |= weight_gradients(cell, module)
    dg = gc.grad(g, "loss", wrt=list(gradients))
    for found in (gc.interpret(dg, **arrays, **params), gc.compile(dg)(**arrays, **params)):
        for k, value in expected.items():
            np.testing.assert_allclose(found[k], value, rtol=1e-10, atol=1e-13, err_msg=k)
        for k, value in gradients.items():
            np.testing.assert_allclose(found[f"grad_{k}"], value, rtol=1e-10, atol=1e-12, err_msg=k)
    assert set(g.params) <= set(gradients)


@pytest.mark.parametrize("cell", CELLS)
def test_a_stack_of_both_directions_has_pytorchs_layout(cell: str) -> None:
    """The names that `stack` and `bidirectional` give are those that `from_torch` returns; two chunks are one run."""
    torch.manual_seed(1)
    module = MODULES[cell](I, H, 3, bidirectional=False).double()
    g = gc.Graph("stacked", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    letters = "hc" if cell == "lstm" else "h"
    initial = [{k: g.input(f"{k}0_{layer}", (H,), over=n) for k in letters} for layer in range(3)]
    deep = gc.cells.stack(g, g.input("x", (I,), over=(t, n)), CELLS[cell], H, 3, over=t, name=cell, initial=initial)
    g.output("y", deep.h)
    for layer, made in enumerate(deep.layers):
        for k in letters:
            g.output(f"{k}0_{layer}", getattr(made, k)[t.last])
    run = functools.partial(gc.compile(g), **gc.cells.from_torch(module.state_dict(), cell))
    x = np.random.default_rng(0).normal(size=(T, N, I))
    expected = module(torch.tensor(x))[0].detach().numpy()
    first = run(x=x[:2], **{k: np.zeros((N, H)) for k in g.inputs if k != "x"})
    second = run(x=x[2:], **{k: a for k, a in first.items() if k != "y"})
    np.testing.assert_allclose(np.concatenate([first["y"], second["y"]]), expected, rtol=1e-11)


@pytest.mark.parametrize("update", ["old", "new"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("layers", "both", "bias"), [(1, False, True), (1, True, False), (3, True, True)])
def test_weights_there_and_back_are_the_same_function(
    cell: str, layers: int, both: bool, bias: bool, update: str
) -> None:
    torch.manual_seed(2)
    module = MODULES[cell](I, H, layers, bidirectional=both, bias=bias).double()
    params = gc.cells.from_torch(module.state_dict(), cell, name="a", update=update)
    again = gc.cells.to_torch({**params, "other_W": np.zeros(3)}, cell, name="a", update=update)
    other = MODULES[cell](I, H, layers, bidirectional=both).double()
    other.load_state_dict({k: torch.tensor(a) for k, a in again.items()})
    x = torch.randn(T, N, I, dtype=torch.float64)
    np.testing.assert_allclose(other(x)[0].detach(), module(x)[0].detach(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("cell", CELLS)
def test_a_module_without_biases_is_a_cell_without_them(cell: str) -> None:
    module = MODULES[cell](I, H, 2, bidirectional=True, bias=False).double()
    g = gc.Graph("bare", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    both = functools.partial(gc.cells.bidirectional, cell=CELLS[cell])
    g.output("y", gc.cells.stack(g, g.input("x", (I,), over=(t, n)), both, H, 2, over=t, name=cell, bias=False).h)
    params = gc.cells.from_torch(module.state_dict(), cell, bias=False)
    assert params.keys() == g.params.keys()
    x = torch.randn(T, N, I, dtype=torch.float64)
    np.testing.assert_allclose(gc.interpret(g, x=x.numpy(), **params)["y"], module(x)[0].detach(), rtol=1e-12)
    back = gc.cells.to_torch(params, cell, bias=False)
    assert back.keys() == module.state_dict().keys()
    assert all(np.array_equal(back[key], tensor) for key, tensor in module.state_dict().items())
    with pytest.raises(GraphError, match="give bias=False"):
        gc.cells.to_torch(params, cell)
    with pytest.raises(GraphError, match="these weights have biases"):
        gc.cells.from_torch(MODULES[cell](I, H).state_dict(), cell, bias=False)


def test_the_other_polarity_of_z_is_the_same_function() -> None:
    module = torch.nn.GRU(I, H).double()
    g = gc.Graph("new", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    cell = gc.cells.gru(g, g.input("x", (I,), over=(t, n)), H, over=t, reset="after", update="new")
    g.output("y", cell.h)
    x = torch.randn(T, N, I, dtype=torch.float64)
    params = gc.cells.from_torch(module.state_dict(), "gru", update="new")
    np.testing.assert_allclose(gc.interpret(g, x=x.numpy(), **params)["y"], module(x)[0].detach(), rtol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_pytorchs_cells_of_one_step_have_the_same_weights(cell: str) -> None:
    one = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell, "elman": torch.nn.RNNCell}[cell](I, H)
    found = gc.cells.from_torch(one.state_dict(), cell)
    expected = gc.cells.from_torch({f"{key}_l0": tensor for key, tensor in one.state_dict().items()}, cell)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_conversions_make_arrays_of_their_own() -> None:
    """Params are updated in place, and PyTorch's module keeps its own."""
    module = torch.nn.LSTM(I, H, proj_size=P)
    state = {key: tensor.numpy() for key, tensor in module.state_dict().items()}
    params = gc.cells.from_torch(module.state_dict(), "lstm")
    back = gc.cells.to_torch(params, "lstm")
    for one, other in ((state, params), (params, back)):
        assert not any(np.shares_memory(a, b) for a in one.values() for b in other.values())


def test_what_pytorch_does_not_have_is_refused_with_the_reason() -> None:
    def params(add: Any) -> Arrays:
        g = gc.Graph("one")
        t = g.axis("t")
        add(g, g.input("x", (I,), over=t), H, over=t, name="a")
        return gc.initialize(g)

    refused = [
        (
            "of reset='before', another function, which PyTorch does not have",
            lambda: gc.cells.to_torch(params(gc.cells.gru), "gru", "a"),
        ),
        ("unknown: p_f, p_i, p_o", lambda: gc.cells.to_torch(params(gc.cells.peephole_lstm), "lstm", "a")),
        ("gain_c", lambda: gc.cells.to_torch(params(gc.cells.layer_norm_lstm), "lstm", "a")),
        ("no param of a cell 'b'", lambda: gc.cells.to_torch(params(gc.cells.lstm), "lstm", "b")),
        ("not 'mgu'", lambda: gc.cells.to_torch({}, "mgu")),
        ("not the weights", lambda: gc.cells.from_torch({"linear.weight": np.zeros((2, 2))}, "lstm")),
        (r"of a larger model, give .*model\.rnn", lambda: gc.cells.from_torch({"a.weight_ih_l0": np.ones(1)}, "lstm")),
        (r"state_dict\(\) was expected, not a LSTM", lambda: gc.cells.from_torch(torch.nn.LSTM(I, H), "lstm")),
        ("give cell='lstm', which these fit", lambda: gc.cells.from_torch(torch.nn.LSTM(I, 3).state_dict(), "gru")),
        ("give cell='gru', which these fit", lambda: gc.cells.from_torch(torch.nn.GRU(I, 4).state_dict(), "lstm")),
    ]
    for message, conversion in refused:
        with pytest.raises(GraphError) as error:
            conversion()
        assert re.search(message, error.value.reason)
