"""PyTorch: its own LSTM and GRU; for other cells a Python loop over fused products, as one writes them by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import graphc as gc
from benchmarks.cells import Cell
from benchmarks.images import RATE, Images
from benchmarks.peers.peer import Call, Calls, Peer
from benchmarks.peers.torch_reseg import named, statistics, training, with_params
from benchmarks.problems import Arrays, Linear, Sequence

VENDOR = ("LSTM", "GRU")  # the cells that PyTorch has kernels for


class _Ops:
    sigmoid = staticmethod(torch.sigmoid)
    tanh = staticmethod(torch.tanh)
    exp = staticmethod(torch.exp)
    softplus = staticmethod(F.softplus)
    maximum = staticmethod(torch.maximum)

    einsum = staticmethod(torch.einsum)

    @staticmethod
    def split(a: Any, parts: int | tuple[int, ...]) -> Any:
        return a.chunk(parts, -1) if isinstance(parts, int) else a.split(parts, -1)

    @staticmethod
    def affine(a: Any, h: Any, U: Any) -> Any:
        return torch.addmm(a, h, U.T)

    @staticmethod
    def layer_norm(a: Any, gain: Any, bias: Any) -> Any:
        return F.layer_norm(a, gain.shape, gain, bias)


class Torch(Peer):
    name = "PyTorch"
    version = torch.__version__
    note = (
        "LSTM, GRU: torch.nn; a step: LSTMCell, GRUCell; other cells and linear recurrences: an eager loop; "
        "bfloat16: under torch.autocast"
    )
    precisions = ("float32", "bf16")

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def forward(self, problem: Sequence) -> Calls:
        x = torch.from_numpy(problem.x)
        if problem.cell in VENDOR:
            module = _module(problem)
            return {self.name: _inference(_rounded(problem, lambda: module(x)[0]))}
        weights = _tensors(problem.kind.pack(problem.params))
        return {self.name: _inference(_rounded(problem, lambda: _loop(problem.kind, weights, x)))}

    def training(self, problem: Sequence) -> Calls:
        x = torch.from_numpy(problem.x)
        if problem.cell in VENDOR:
            module = _module(problem)
            leaves = dict(module.named_parameters())
            call, unpack = lambda: module(x)[0], lambda grads: _by_gate(problem, grads)
        else:
            leaves = {k: a.requires_grad_() for k, a in _tensors(problem.kind.pack(problem.params)).items()}
            call, unpack = lambda: _loop(problem.kind, leaves, x), problem.kind.unpack
        states = _rounded(problem, call)
        return {self.name: _gradient(leaves, lambda: (problem.asked(states()) ** 2).sum(-1).mean(), unpack)}

    def step(self, problem: Sequence) -> Calls:
        if problem.cell not in VENDOR:
            return {}
        cell = getattr(torch.nn, f"{problem.cell}Cell")(problem.units, problem.units)
        weights = gc.cells.to_torch(problem.named, problem.cell.lower(), name="cell")
        cell.load_state_dict({k.removesuffix("_l0"): torch.from_numpy(a) for k, a in weights.items()})
        frames = torch.from_numpy(problem.x)
        state: Any = None

        @torch.inference_mode()
        def run() -> None:
            nonlocal state
            state = cell(frames[0], state)

        @torch.inference_mode()
        def results() -> Arrays:
            own, h = None, []
            for x in frames:
                own = cell(x, own)
                h.append((own[0] if isinstance(own, tuple) else own).numpy())
            return {"h": np.stack(h)}

        return {self.name: Call(run, results)}

    def linear_forward(self, problem: Linear) -> Calls:
        a, b = torch.from_numpy(problem.a), torch.from_numpy(problem.b)

        def run() -> Any:
            h = torch.empty_like(b)
            h[0] = b[0]
            for t in range(1, len(b)):
                torch.addcmul(b[t], a[t], h[t - 1], out=h[t])
            return h

        return {self.name: _inference(run)}

    def linear_training(self, problem: Linear) -> Calls:
        leaves = {k: torch.from_numpy(v).requires_grad_() for k, v in (("a", problem.a), ("b", problem.b))}

        def loss() -> Any:
            h = torch.zeros_like(leaves["b"][0])
            states = []
            for a, b in zip(leaves["a"].unbind(), leaves["b"].unbind(), strict=True):
                h = torch.addcmul(b, a, h)
                states.append(h)
            return (torch.stack(states) ** 2).mean()

        return {self.name: _gradient(leaves, loss, lambda grads: grads)}

    def image_forward(self, problem: Images) -> Calls:
        model, x = with_params(problem.params).eval(), torch.from_numpy(problem.photographs)
        run = torch.inference_mode()(lambda: torch.softmax(model(x), 1))
        return {self.name: Call(run, lambda: {"probabilities": run().numpy()})}

    def image_training(self, problem: Images) -> Calls:
        x, labels = torch.from_numpy(problem.photographs), torch.from_numpy(problem.labels).long()

        def results() -> Arrays:
            model = with_params(problem.params)
            optimizer, step = training(model, x, labels)
            loss = step().numpy()
            velocity = named(model, lambda p: -RATE * optimizer.state[p]["momentum_buffer"] if p.requires_grad else p)
            means = {name: a for name, a in statistics(model).items() if name.endswith("_mean")}
            return {"loss": loss, **{f"momentum_{k}": a for k, a in velocity.items()}, **means}

        return {self.name: Call(training(with_params(problem.params), x, labels)[1], results)}


def _tensors(arrays: Arrays) -> dict[str, Any]:
    return {name: torch.from_numpy(a.copy()) for name, a in arrays.items()}


def _module(problem: Sequence) -> Any:
    """torch.nn.LSTM or GRU with the problem's params."""
    module = getattr(torch.nn, problem.cell)(problem.units, problem.units)
    weights = gc.cells.to_torch(problem.named, problem.cell.lower(), name="cell")
    module.load_state_dict({k: torch.from_numpy(a) for k, a in weights.items()})
    return module


def _loop(cell: Cell, weights: dict[str, Any], x: Any) -> Any:
    """h at every step."""
    a = F.linear(x, weights["W"], weights.get("b"))
    states = tuple(torch.from_numpy(zero) for zero in cell.zeros(*x.shape[1:]))
    h = []
    for row in a.unbind():
        states = cell.step(_Ops, weights, row, states)
        h.append(states[0])
    return torch.stack(h)


def _rounded(problem: Sequence, h: Callable[[], Any]) -> Callable[[], Any]:
    """What gives the states in float32, under PyTorch's autocast if the problem asks for it."""
    if problem.precision == "float32":
        return h

    def run() -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = h()
        return states.float()

    return run


def _inference(h: Any) -> Call:
    run = torch.inference_mode()(h)
    return Call(run, lambda: {"h": run().numpy()})


def _gradient(leaves: dict[str, Any], loss: Any, unpack: Any) -> Call:
    """A loss and its gradient by leaves, and the way from the leaves' gradients to those by the problem's names."""

    def run() -> Any:
        for leaf in leaves.values():
            leaf.grad = None
        value = loss()
        value.backward()
        return value.detach()

    def results() -> Arrays:
        value = run()
        grads = unpack({k: leaf.grad.numpy() for k, leaf in leaves.items()})
        return {"loss": value.numpy()} | {f"grad_{k}": a for k, a in grads.items()}

    return Call(run, results)


def _by_gate(problem: Sequence, grads: Arrays) -> Arrays:
    found = by_gate(grads, problem.cell, problem.units, 0, "cell")
    return {name.removeprefix("cell_"): a for name, a in found.items()}


def by_gate(grads: Arrays, cell: str, units: int, layer: int, name: str) -> Arrays:
    """The gradients by torch.nn's weights of a layer, by the gates of a cell of ours that has this name."""
    own = {f"{k.removesuffix(f'_l{layer}')}_l0": a for k, a in grads.items() if k.endswith(f"_l{layer}")}
    second = own["bias_hh_l0"].copy()  # torch.nn's two biases have the same gradient, which is that of ours,
    second[: -units if cell == "GRU" else None] = 0  # but for the GRU's n, which has two
    return gc.cells.from_torch({**own, "bias_hh_l0": second}, cell.lower(), name=name)


peer = Torch
