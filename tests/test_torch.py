"""graphc.torch: a graph as a module of PyTorch, whose gradients PyTorch's own check finds right."""

from __future__ import annotations

import copy
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import ArgumentError, GraphError, UnsupportedError

torch = pytest.importorskip("torch")
Module = pytest.importorskip("graphc.torch").Module


def network(dtype: str = "float32", ragged: bool = False) -> gc.Graph:
    g = gc.Graph("net", dtype=dtype)
    n = g.axis("n")
    t = g.axis("t", g.input("length", (), over=n, dtype="int32") if ragged else None)
    h = gc.cells.lstm(g, g.input("x", (2,), over=(t, n)), 3, over=t).h
    g.output("h", h)
    g.output("last", h[t.last])
    g.output("largest", gc.argmax(h))
    return g


def test_gradients_are_those_of_finite_differences() -> None:
    """By inputs and by params, of outputs used together and alone."""
    module = Module(network("float64"))
    x = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)

    def outputs(x: Any, *_: Any) -> Any:
        r = module(x=x)
        assert not r["largest"].requires_grad
        return r["h"], r["last"]

    assert torch.autograd.gradcheck(outputs, (x, *module.parameters()))
    assert torch.autograd.gradcheck(lambda x: module(x=x)["last"].sum(), (x,))


def test_examples_of_different_lengths() -> None:
    module = Module(network("float64", ragged=True))
    x = torch.randn(5, 3, 2, dtype=torch.float64, requires_grad=True)
    length = torch.tensor([5, 1, 3], dtype=torch.int32)
    assert torch.autograd.gradcheck(lambda x, *_: module(x=x, length=length)["last"], (x, *module.parameters()))
    module(x=x, length=length)["h"].sum().backward()
    assert (x.grad[1:, 1] == 0).all()


@pytest.mark.parametrize("ragged", [False, True])
def test_gradients_of_gradients_are_those_of_finite_differences(ragged: bool) -> None:
    module = Module(network("float64", ragged))
    x = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    length = {"length": torch.tensor([4, 1, 3])} if ragged else {}

    def outputs(x: Any, *_: Any) -> Any:
        r = module(x=x, **length)
        return r["h"], r["last"]

    assert torch.autograd.gradgradcheck(outputs, (x, *module.parameters()))


def test_gradients_of_gradients_where_batches_are_normalised() -> None:
    """By its own statistics in training, by the running ones after it; only a forward pass moves these."""
    g = gc.Graph("norm", dtype="float64")
    n = g.axis("n")
    g.output("y", gc.layers.batch_norm(g, g.input("x", (3,), over=n), over=n))
    module = Module(g)
    x = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    y = module(x=x)["y"]
    moved = {name: b.clone() for name, b in module.named_buffers()}
    (gradient,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    gradient.pow(2).sum().backward()
    assert all(torch.equal(moved[name], b) for name, b in module.named_buffers())
    for training in (True, False):
        module.train(training)
        assert torch.autograd.gradgradcheck(lambda x, *_: module(x=x)["y"], (x, *module.parameters()))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_gradient_penalty_is_pytorch_s_own(dtype: str) -> None:
    """Of a critic: how far its gradient by the input is from length 1, by its weights and by the input."""
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(2, 3, dtype=getattr(torch, dtype))
    mine = Module(network(dtype))
    weights = gc.cells.from_torch(theirs.state_dict(), "lstm")
    mine.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    x = torch.randn(5, 4, 2, dtype=getattr(torch, dtype), requires_grad=True)
    found = []
    for critic in (lambda x: mine(x=x)["last"], lambda x: theirs(x)[1][0][0]):
        score = critic(x).tanh().sum()
        (slope,) = torch.autograd.grad(score, x, create_graph=True)
        penalty = ((slope.norm(dim=(0, 2)) - 1) ** 2).mean() - score
        x.grad = None
        penalty.backward()
        found.append((penalty.detach(), x.grad))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    grads = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    grads["bias_hh_l0"] = torch.zeros_like(grads["bias_hh_l0"])  # a cell has the sum of both biases
    for name, expected in gc.cells.from_torch(grads, "lstm").items():
        np.testing.assert_allclose(mine.get_parameter(name).grad.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("derived", ["grad", "vjp"])
def test_a_module_of_a_derivative_has_gradients(derived: str) -> None:
    """What it takes and gives is called as what its own derivative would."""
    g = gc.Graph("net", dtype="float64")
    t = g.axis("t")
    h = g.state("h", (2,), over=t)
    h[t] = gc.tanh(g.param("W", (2, 2), init="orthogonal") @ h[t - 1] + g.input("x", (2,), over=t))
    g.output("loss", gc.mean(gc.sum(h * h), over=t))
    graph = gc.grad(g, "loss", ["x", "W"]) if derived == "grad" else gc.vjp(g, "loss", ["x", "W"])
    module = Module(graph)
    shapes = {name: (3, *node.shape) if node.axes else node.shape for name, node in graph.inputs.items()}
    given = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    leaves = [tensor.requires_grad_() for tensor in given.values()]
    assert torch.autograd.gradcheck(lambda *_: tuple(module(**given).values()), (*leaves, *module.parameters()))


def test_a_model_of_both_trains_as_pytorch_s_own() -> None:
    """The same LSTM between an embedding and a linear layer of PyTorch's, with the same weights, for a few steps."""
    torch.manual_seed(0)
    g = gc.Graph("net")
    t, n = g.axis("t"), g.axis("n")
    g.output("h", gc.cells.lstm(g, g.input("x", (6,), over=(t, n)), 8, over=t, name="cell").h)
    mine, theirs = Module(g), torch.nn.LSTM(6, 8)
    theirs.bias_hh_l0.requires_grad_(False)  # its second bias; two that are trained move twice as far
    weights = gc.cells.from_torch({k: v.detach().numpy() for k, v in theirs.state_dict().items()}, "lstm", name="cell")
    mine.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    embedding, linear = torch.nn.Embedding(20, 6), torch.nn.Linear(8, 20)
    words = torch.randint(0, 20, (7, 4))
    found = []
    for layer in (lambda x: mine(x=x)["h"], lambda x: theirs(x)[0]):
        parts = [copy.deepcopy(embedding), copy.deepcopy(linear)]
        owner = mine if not found else theirs
        optimizer = torch.optim.Adam([*owner.parameters(), *(p for part in parts for p in part.parameters())], 0.05)
        losses = []
        for _ in range(10):
            optimizer.zero_grad()
            logits = parts[1](layer(parts[0](words[:-1])))
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), words[1:].flatten())
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        found.append(losses)
    assert found[0][-1] < 0.8 * found[0][0]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


def test_without_gradients_it_is_the_function_alone() -> None:
    module, x = Module(network()), torch.randn(4, 3, 2)
    with torch.no_grad():
        found = module(x=x)
    expected = gc.interpret(network(), x=x.numpy(), **{n: p.detach().numpy() for n, p in module.named_parameters()})
    for name in expected:
        assert not found[name].requires_grad
        np.testing.assert_allclose(found[name].numpy(), expected[name], rtol=1e-5, atol=1e-6)
    frozen = Module(network()).requires_grad_(False)
    assert not frozen(x=x)["h"].requires_grad


def test_any_layout_of_a_tensor_and_of_a_gradient() -> None:
    module = Module(network())
    x = torch.randn(3, 4, 2).transpose(0, 1).requires_grad_()
    same = x.detach().contiguous().requires_grad_()
    module(x=x)["h"].transpose(0, 2).sum(0).expand(3, 3, 4).pow(2).sum().backward()
    module(x=same)["h"].transpose(0, 2).sum(0).expand(3, 3, 4).pow(2).sum().backward()
    assert torch.equal(x.grad, same.grad)


def test_running_statistics_are_buffers_and_evaluation_reads_them() -> None:
    g = gc.Graph("norm")
    n = g.axis("n")
    g.output("y", gc.layers.batch_norm(g, g.input("x", (3,), over=n), over=n))
    module = Module(g)
    buffers = dict(module.named_buffers())
    before = {name: b.clone() for name, b in buffers.items()}
    x = torch.randn(8, 3, requires_grad=True)
    module(x=x)["y"].pow(2).sum().backward()
    assert buffers
    assert any(not torch.equal(before[name], b) for name, b in buffers.items())
    module.eval()
    kept = {name: b.clone() for name, b in buffers.items()}
    evaluated = module(x=x)["y"]
    assert all(torch.equal(kept[name], b) for name, b in buffers.items())
    assert not torch.allclose(evaluated, module.train()(x=x)["y"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_tensors_of_small_dtypes(dtype: str) -> None:
    g = gc.Graph("small")
    n = g.axis("n")
    x = g.input("x", (2,), over=n, dtype=dtype)
    g.output("y", gc.cast(gc.tanh(x @ g.param("W", (2, 2), init="normal")), dtype))
    module = Module(g)
    x = torch.randn(4, 2).to(getattr(torch, dtype)).requires_grad_()
    y = module(x=x)["y"]
    assert y.dtype is x.dtype
    y.float().sum().backward()
    w = module.W.detach().clone().requires_grad_()
    again = x.detach().float().requires_grad_()
    torch.tanh(again @ w).sum().backward()
    assert x.grad.dtype is x.dtype
    np.testing.assert_allclose(x.grad.float().numpy(), again.grad.numpy(), rtol=0.02, atol=0.01)
    np.testing.assert_allclose(module.W.grad.numpy(), w.grad.numpy(), rtol=1e-4)


def test_autocast_chooses_no_dtypes_of_the_graph() -> None:
    """As of PyTorch's own layers that are sensitive: what comes in bfloat16 is cast, and so is the gradient back."""
    module, linear = Module(network()), torch.nn.Linear(2, 2)
    x = torch.randn(4, 3, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inner = linear(x)
        h = module(x=inner)["h"]
    assert (inner.dtype, h.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(h, module(x=inner.float())["h"])
    h.sum().backward()
    assert linear.weight.grad.dtype is torch.float32
    with pytest.raises(ArgumentError, match="x is a tensor of bfloat16"):
        module(x=inner)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.uint8])
def test_whole_numbers_of_any_size_that_fit(dtype: Any) -> None:
    """Indices, labels and lengths are int64 in PyTorch."""
    module, x = Module(network(ragged=True)), torch.randn(4, 3, 2)
    length = torch.tensor([4, 1, 2], dtype=torch.int32)
    expected = module(x=x, length=length)["h"]
    found = module(x=x, length=length.to(dtype))["h"]
    assert torch.equal(found, expected)
    found.sum().backward()
    with pytest.raises(ArgumentError, match="length holds 4294967297, which is no int32"):
        module(x=x, length=length.long() + 2**32)
    with pytest.raises(ArgumentError, match="length is a tensor of float32, expected int32"):
        module(x=x, length=length.float())


def test_a_change_between_the_passes_is_noticed() -> None:
    """As in PyTorch itself: gradients would be those of another point."""
    module, x = Module(network()), torch.randn(4, 3, 2)
    r = module(x=x)
    with torch.no_grad():
        r["h"].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        r["h"].sum().backward()


def test_equal_results_do_not_share_memory() -> None:
    """Gradients are added up in place, and outputs may be changed: that of one must not change another."""
    g = gc.Graph("twice", dtype="float64")
    a, p, q = g.input("a", (2,)), g.param("p", (2,)), g.param("q", (2,))
    y = gc.tanh(a + p + q)
    g.output("y", y)
    g.output("again", y)
    module, zero = Module(g), torch.zeros(2, dtype=torch.float64)
    for _ in range(2):
        module(a=zero)["y"].sum().backward()
    assert torch.equal(module.p.grad, torch.full_like(zero, 2))
    assert torch.equal(module.q.grad, module.p.grad)
    r = module(a=zero + 1)
    before = r["again"].detach().clone()
    r["y"].mul_(3)
    assert torch.equal(r["again"], before)
    module.zero_grad()
    r["again"].sum().backward()
    np.testing.assert_allclose(module.p.grad.numpy(), 1 - before.numpy() ** 2)


def test_an_output_may_be_called_as_an_input_or_a_param_is() -> None:
    """As where a state is carried from call to call: h0 in, h0 out."""
    g = gc.Graph("carry", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    x, h0, W = g.input("x", (3,), over=(t, n)), g.input("h0", (3,), over=n), g.param("W", (3, 3), init="orthogonal")
    h = g.state("h", (3,), over=(t, n), initial=h0)
    h[t] = gc.tanh(W @ h[t - 1] + x[t])
    g.output("h", h)
    g.output("h0", h[t.last])
    g.output("W", gc.exp(W))
    module = Module(g)
    given = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((4, 2, 3), (2, 3))]
    assert torch.autograd.gradcheck(lambda x, h0, *_: tuple(module(x=x, h0=h0).values()), (*given, module.W))


def test_what_pytorch_computes_lazily() -> None:
    """Negative bits, of an input and of a cotangent; and a compiled model around the module."""
    module = Module(network())
    x = torch.randn(4, 3, 2)
    lazy = torch.complex(x, -x).conj().imag
    expected = module(x=x)["h"]
    assert torch.equal(module(x=lazy)["h"], expected)
    torch.complex(expected, expected).conj().imag.sum().backward()
    negative = next(module.parameters()).grad.clone()
    module.zero_grad()
    module(x=x)["h"].sum().backward()
    assert torch.equal(next(module.parameters()).grad, -negative)


def test_modules_are_copied_and_pickled_without_their_code() -> None:
    module, x = Module(network(), seed=3), torch.randn(4, 3, 2)
    expected = module(x=x)["h"]
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x=x)["h"], expected)
        with torch.no_grad():
            next(other.parameters()).zero_()
        assert not torch.equal(other(x=x)["h"], expected)
    assert torch.equal(module(x=x)["h"], expected)


def test_a_module_of_which_a_param_is_computed_is_copied_too() -> None:
    """PyTorch gives such a module a way to copy itself that asks for no state."""
    module, x = Module(network()), torch.randn(4, 3, 2)
    torch.nn.utils.parametrizations.weight_norm(module, "lstm_U_f")
    expected = module(x=x)["h"]
    other = copy.deepcopy(module)
    assert torch.equal(other(x=x)["h"], expected)
    other(x=x)["h"].sum().backward()
    assert other.parametrizations.lstm_U_f.original1.grad is not None
    assert module.parametrizations.lstm_U_f.original1.grad is None


def test_weights_begin_as_pytorch_s_generator_says() -> None:
    """Two modules of one graph begin apart, and alike after the same seed."""
    g = network()
    torch.manual_seed(3)
    one, other = Module(g), Module(g)
    torch.manual_seed(3)
    again = Module(g)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(p, Module(g, seed=5).get_parameter(n)) for n, p in Module(g, seed=5).named_parameters())


def test_weights_begin_again() -> None:
    """As those of PyTorch's layers do, in place; also where one is computed, or where there was no memory for any."""
    module = Module(network())
    before = dict(module.named_parameters())
    torch.nn.utils.parametrizations.weight_norm(module, "lstm_U_f")
    module.apply(lambda layer: layer.reset_parameters(seed=7) if hasattr(layer, "reset_parameters") else None)
    expected = Module(network(), seed=7)
    for name in before:
        torch.testing.assert_close(getattr(module, name), getattr(expected, name))
    assert module.lstm_W_f is before["lstm_W_f"]
    with torch.device("meta"):
        empty = Module(network())
    assert empty.lstm_W_f.is_meta
    empty.to_empty(device="cpu").reset_parameters(seed=7)
    x = torch.randn(4, 3, 2)
    assert torch.equal(empty(x=x)["h"], expected(x=x)["h"])
    torch.manual_seed(1)
    empty.reset_parameters()
    torch.manual_seed(1)
    assert torch.equal(empty.lstm_W_f, Module(network()).lstm_W_f)


def test_evaluation_needs_nothing_that_only_training_reads() -> None:
    """Such as the seed of what is dropped, which is a number in training."""
    g = gc.Graph("dropping")
    n = g.axis("n")
    g.output("y", gc.dropout(gc.tanh(g.input("x", (3,), over=n)), 0.5, g.input("seed", (), dtype="int32")))
    module, x = Module(g), torch.randn(8, 3, requires_grad=True)
    dropped = module(x=x, seed=3)["y"]
    assert torch.equal(dropped, module(x=x, seed=torch.tensor(3))["y"])
    assert not torch.equal(dropped, module(x=x, seed=4)["y"])
    with pytest.raises(ArgumentError, match="no seed"):
        module(x=x)
    for wrong, message in ((1.5, "seed is of type float"), (2**40, "is no int32"), (None, "seed is of type NoneType")):
        with pytest.raises(ArgumentError, match=message):
            module(x=x, seed=wrong)
    module.eval()
    torch.testing.assert_close(module(x=x)["y"], x.tanh())
    torch.testing.assert_close(module(x=x, seed=torch.tensor(3))["y"], x.tanh())


def test_numbers_stand_for_tensors_of_one_element() -> None:
    g = gc.Graph("scaled")
    by, on = g.input("by", ()), g.input("on", (), dtype="bool")
    g.output("y", gc.where(on, by * g.input("x", (2,)), 0.0))
    module, x = Module(g), torch.ones(2)
    for by in (2, 2.0, torch.tensor(2.0)):
        assert torch.equal(module(x=x, by=by, on=True)["y"], 2 * x)
    for given, message in (
        ({"x": 1.0, "by": 2, "on": True}, "x is of type float"),
        ({"x": x, "by": 2, "on": 1}, "on is"),
    ):
        with pytest.raises(ArgumentError, match=message):
            module(**given)


def test_products_in_bfloat16() -> None:
    """Parameters stay float32, and so do gradients, which are near."""
    g, x = network(), torch.randn(4, 3, 2)
    exact, rounded = Module(g, seed=0), Module(g, seed=0, precision="bf16")
    for module in (exact, rounded):
        module(x=x)["h"].square().sum().backward()
    for a, b in zip(exact.parameters(), rounded.parameters(), strict=True):
        assert b.grad is not None
        assert b.grad.dtype == torch.float32
        torch.testing.assert_close(a.grad, b.grad, rtol=5e-2, atol=5e-2)


def test_modules_of_equal_graphs_share_code_and_later_equations_are_none_of_theirs() -> None:
    g, x = network(), torch.randn(4, 3, 2)
    one, other = Module(g), Module(network(), seed=1)
    outputs = list(one(x=x))
    other(x=x)
    assert set(map(id, one._made.values())) == set(map(id, other._made.values()))
    different = Module(g, precision="bf16")
    different(x=x)
    assert set(map(id, one._made.values())).isdisjoint(map(id, different._made.values()))
    g.output("more", gc.tanh(g.param("p", (3,)) * g.value("h")))
    assert list(one(x=x)) == outputs
    assert list(Module(g)(x=x)) == [*outputs, "more"]


@pytest.mark.parametrize("threads", [None, 2])
def test_a_module_has_no_more_threads_than_pytorch(threads: int | None) -> None:
    """As in a worker that loads data, or in one of many processes; unless it is told otherwise."""
    module, before = Module(network(), threads=threads), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module(x=torch.randn(4, 3, 2))
    finally:
        torch.set_num_threads(before)
    (made,) = module._made.values()
    assert made.forward.compiled.threads == (threads or 1)


def test_the_guide_s_model_trains() -> None:
    guide = (Path(__file__).parent.parent / "docs/guide.md").read_text(encoding="utf-8")
    block = next(b for b in re.findall(r"```py\n(.*?)```\n", guide, re.DOTALL) if "import torch" in b)
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(block + "first = loss\n", "guide.py", "exec"), names)
    loss = torch.nn.functional.cross_entropy(
        names["model"](names["words"][:-1]).flatten(0, 1), names["words"][1:].flatten()
    )
    assert loss < names["first"] < 5
    assert all(p.grad is not None for p in names["model"].parameters())


def test_mistakes_are_named() -> None:
    module, x = Module(network()), torch.randn(4, 3, 2)
    for given, message in (
        ({}, "no x"),
        ({"x": x.numpy()}, "x is of type ndarray"),
        ({"x": x.double()}, r"x is a tensor of float64, expected float32; pass x.to\(torch.float32\)"),
        ({"x": x[0]}, r"x has shape \(3, 2\)"),
        ({"x": x, "y": x}, "no input or axis 'y'"),
        ({"x": x.to("meta")}, r"x is a tensor on meta, .* pass x.to\('cpu'\) or move the module, to\('meta'\)"),
        (
            {"x": torch.nn.utils.rnn.pack_sequence([x[:, 0], x[:, 1]])},
            "type PackedSequence; pass it padded, and lengths",
        ),
    ):
        with pytest.raises(ArgumentError, match=message):
            module(**given)
    trained = gc.Graph("trained")
    w = trained.param("w", ())
    trained.output("y", w * trained.input("x", ()))
    trained.update(w, 0.9 * w)
    with pytest.raises(UnsupportedError, match="updates w itself"):
        Module(trained)
    with pytest.raises(ArgumentError, match="is float64, but graph 'net' computes with float32"):
        Module(network()).double()(x=x.double())
    named = gc.Graph("named")
    named.output("y", named.param("type", ()))
    with pytest.raises(UnsupportedError, match="'type'"):
        Module(named)
    with pytest.raises(ArgumentError, match="without its name") as caught:
        torch.nn.Sequential(module)(x)
    assert caught.value.location is not None
    assert caught.value.location.file == __file__  # not PyTorch's, which calls the module


def elman() -> tuple[Any, Any, dict[str, Any], Any]:
    """A module and the same cell in a loop, as functions of their params and an input; params, and an input."""
    g = gc.Graph("elman", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    h = g.state("h", (3,), over=(t, n))
    W, U, b = g.param("W", (3, 2)), g.param("U", (3, 3)), g.param("b", (3,), init="normal")
    h[t] = gc.tanh(W @ g.input("x", (2,), over=(t, n)) + U @ h[t - 1] + b)
    g.output("h", h)
    module = Module(g, seed=0)

    def compiled(params: dict[str, Any], x: Any) -> Any:
        return torch.func.functional_call(module, params, (), {"x": x})["h"]

    def loop(params: dict[str, Any], x: Any) -> Any:
        W, U, b = (params[name] for name in "WUb")
        steps = [x.new_zeros(x.shape[1], 3)]
        for step in x:
            steps.append(torch.tanh(step @ W.T + steps[-1] @ U.T + b))
        return torch.stack(steps[1:])

    params = {name: p.detach() for name, p in module.named_parameters()}
    return compiled, loop, params, torch.randn(4, 3, 2, dtype=torch.float64)


TRANSFORMS = {
    "grad": lambda f, p, x: torch.func.grad(lambda p: f(p, x).pow(2).sum())(p),
    "grad of grad": lambda f, p, x: torch.func.grad(
        lambda x: torch.func.grad(lambda p: f(p, x).pow(2).sum())(p)["U"].pow(2).sum()
    )(x),
    "grad by an outer value only": lambda f, p, x: torch.func.grad(
        lambda x: torch.func.grad(lambda q: (f(p, 2 * x) * q).pow(2).sum())(x[0, 0, 0])
    )(x),
    "vjp": lambda f, p, x: torch.func.vjp(lambda x: f(p, x), x)[1](torch.ones(4, 3, 3, dtype=x.dtype)),
    "jacrev": lambda f, p, x: torch.func.jacrev(lambda x: f(p, x)[-1])(x),
    "jacrev of jacrev": lambda f, p, x: torch.func.jacrev(torch.func.jacrev(lambda x: f(p, x)[-1].sum()))(x),
    "jvp": lambda f, p, x: torch.func.jvp(lambda x: f(p, x), (x,), (1 - x,)),
    "jvp by params": lambda f, p, x: torch.func.jvp(lambda p: f(p, x), (p,), ({n: 1 - q for n, q in p.items()},)),
    "jvp of jvp": lambda f, p, x: torch.func.jvp(
        lambda x: torch.func.jvp(lambda x: f(p, x), (x,), (1 - x,))[1], (x,), (x**2,)
    ),
    "grad of jvp": lambda f, p, x: torch.func.grad(
        lambda x: torch.func.jvp(lambda x: f(p, x).sum(), (x,), (1 - x,))[1].pow(2)
    )(x),
    "jacfwd": lambda f, p, x: torch.func.jacfwd(lambda x: f(p, x)[-1])(x),
    "hessian": lambda f, p, x: torch.func.hessian(lambda x: f(p, x)[-1].sum())(x),
    "vmap": lambda f, p, x: torch.func.vmap(lambda y: f(p, y), in_dims=-1, out_dims=1)(torch.stack([x, 2 * x], -1)),
    "vmap of vmap": lambda f, p, x: torch.func.vmap(torch.func.vmap(lambda y: f(p, y)))(x.expand(2, 3, *x.shape)),
    "an ensemble": lambda f, p, x: torch.func.vmap(f, in_dims=(0, None))(
        {name: torch.stack([q, -q]) for name, q in p.items()}, x
    ),
    "gradients of each example": lambda f, p, x: torch.func.vmap(
        torch.func.grad(lambda p, y: f(p, y[:, None]).pow(2).sum()), in_dims=(None, 1)
    )(p, x),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_of_pytorch_are_those_of_a_loop(transform: str) -> None:
    compiled, loop, params, x = elman()
    found, expected = (TRANSFORMS[transform](f, params, x) for f in (compiled, loop))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("enabled", [True, False])
def test_forward_mode(enabled: bool) -> None:
    """As by dual numbers, also where no gradients are wanted; of outputs that have no derivative there is none."""
    module, x = Module(network("float64")), torch.randn(4, 3, 2, dtype=torch.float64)
    with torch.autograd.forward_ad.dual_level(), torch.set_grad_enabled(enabled):
        found = module(x=torch.autograd.forward_ad.make_dual(x, 1 - x))
        pushed = {name: torch.autograd.forward_ad.unpack_dual(tensor).tangent for name, tensor in found.items()}
    ahead, behind = (module(x=x + by * (1 - x)) for by in (1e-6, -1e-6))
    for name in ("h", "last"):
        torch.testing.assert_close(pushed[name], (ahead[name] - behind[name]).detach() / 2e-6, rtol=1e-6, atol=1e-6)
    assert pushed["largest"] is None


def test_what_a_transform_meets() -> None:
    """Whole numbers are checked in it as elsewhere; running statistics would move once for each element."""
    module, x = Module(network(ragged=True)), torch.randn(2, 4, 3, 2)
    length = torch.tensor([[4, 1, 2], [3, 4, 4]])
    found = torch.func.vmap(lambda x, length: module(x=x, length=length)["h"])(x, length)
    for k in range(2):
        assert torch.equal(found[k], module(x=x[k], length=length[k])["h"])
    with pytest.raises(ArgumentError, match="length holds 4294967297, which is no int32"):
        torch.func.vmap(lambda x, length: module(x=x, length=length)["h"])(x, length + 2**32)
    g = gc.Graph("norm")
    n = g.axis("n")
    g.output("y", gc.layers.batch_norm(g, g.input("x", (3,), over=n), over=n))
    norm, x = Module(g), torch.randn(2, 4, 3)
    with pytest.raises(UnsupportedError, match="once for each element, and would update norm_mean, norm_var"):
        torch.func.vmap(lambda x: norm(x=x)["y"])(x)
    norm.eval()
    assert torch.equal(torch.func.vmap(lambda x: norm(x=x)["y"])(x)[1], norm(x=x[1])["y"])


@pytest.mark.filterwarnings("ignore")
def test_transforms_of_pytorch_that_do_not_go_through_are_named() -> None:
    module, x = Module(network()), torch.randn(4, 3, 2, requires_grad=True)

    def last(x: Any) -> Any:
        return module(x=x)["last"]

    for transform, message in (
        (lambda: torch.func.vmap(last)(x[None, :0][:0]), "once for each element, and has none"),
        (lambda: torch.jit.trace(last, (x,)), "torch.jit sees nothing"),
        (lambda: torch.onnx.export(module, (), io.BytesIO(), kwargs={"x": x}, dynamo=False), "torch.jit sees nothing"),
        (lambda: torch.autograd.functional.jacobian(last, x, vectorize=True), "batched gradients do not go through"),
        (lambda: torch.export.export(module, (), {"x": x}), "x is no dense tensor"),
        (lambda: last(x.to_sparse()), "x is no dense tensor"),
    ):
        with pytest.raises(UnsupportedError, match=message):
            transform()
    called = torch.func.functional_call(module, {n: 0 * p for n, p in module.named_parameters()}, (), {"x": x})
    assert (called["last"] == 0).all()


@pytest.mark.parametrize("held", [0, 16])
def test_a_tensor_whose_memory_was_given_back_is_refused(held: int) -> None:
    """Sharded and offloaded training leaves tensors their sizes and takes their memory."""
    module, x = Module(network()), torch.randn(4, 3, 2)
    x.untyped_storage().resize_(held)
    with pytest.raises(UnsupportedError, match=f"take 96 bytes, but its storage holds {held}"):
        module(x=x)
    once = torch.randn(1, 3, 2)
    assert torch.equal(module(x=once.expand(4, 3, 2))["last"], module(x=once.repeat(4, 1, 1))["last"])


def test_functions_of_pytorch_do_not_take_values() -> None:
    x = network().value("x")
    for function in (torch.tanh, lambda v: torch.cat([v, v]), lambda v: torch.matmul(torch.ones(2), v)):
        with pytest.raises(GraphError, match=r"torch.* computes arrays, not values of a graph.*gc\.tanh"):
            function(x)
    for made in (lambda: x * torch.ones(2), lambda: torch.ones(2) * x):
        with pytest.raises(GraphError, match=r"computes arrays|np.asarray makes an array of it"):
            made()
