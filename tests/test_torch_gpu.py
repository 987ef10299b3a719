"""graphc.torch where tensors lie on a GPU: in the emulator, whose memory stands for theirs, and on a GPU if there is
one, as on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.cuda.driver.dlpack import DeviceArray
from graphc.errors import ArgumentError, UnsupportedError
from tests.cuda_emulated import EmulatedDevice
from tests.test_torch import network

torch = pytest.importorskip("torch")
module_of = pytest.importorskip("graphc.torch.module")
tensors = pytest.importorskip("graphc.torch.tensors")
STREAM = 4711


@dataclass(frozen=True)
class EmulatedGpu(tensors.Gpu):
    """The emulator's GPU for tensors of the CPU: they are copied there and back."""

    there: dict[str, DeviceArray] = field(default_factory=dict, compare=False)

    def run(self, compiled: Any, given: Mapping[str, Any], lengths: Mapping[str, int]) -> dict[str, Any]:
        found = super().run(compiled, given, lengths)
        for name in compiled.runner.graph.updates:
            given[name].data.copy_(self.tensor(self.there[name]))
        return found

    def shown(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        self.there.clear()
        self.there.update({name: DeviceArray.copy_of(tensor.numpy(), self.device) for name, tensor in given.items()})
        return self.there

    def tensor(self, array: Any) -> Any:
        return torch.from_numpy(array.numpy() if not isinstance(array, np.ndarray) else array)

    def stream(self) -> object:
        return STREAM


@pytest.fixture(params=["emulated", "cuda"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The device of tensors on a GPU."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU, or a PyTorch without CUDA")
        return torch.device("cuda", 0)
    place = EmulatedGpu(device=EmulatedDevice())
    monkeypatch.setattr(module_of, "place_on", lambda device, threads, precision: place)
    return torch.device("cpu")


def gradients(module: Any, given: Mapping[str, Any], outputs: list[str]) -> dict[str, np.ndarray]:
    """The outputs and, of the sum of what their squares come to, the gradients by all that has one."""
    leaves = {n: t.clone().requires_grad_() if t.dtype.is_floating_point else t for n, t in given.items()}
    found = module(**leaves)
    sum((found[name] ** 2).sum() for name in outputs).backward()
    wanted = {**leaves, **dict(module.named_parameters())}
    grads = {f"grad {name}": t.grad for name, t in wanted.items() if t.grad is not None}
    buffers = dict(module.named_buffers())
    return {n: t.detach().cpu().numpy() for n, t in {**{o: found[o] for o in outputs}, **grads, **buffers}.items()}


def compare(graph: gc.Graph, device: Any, outputs: list[str], **given: Any) -> None:
    module = module_of.Module(graph, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module_of, "place_on", lambda *_: tensors.Cpu())
        expected = gradients(module_of.Module(graph, seed=0), given, outputs)
    found = gradients(module.to(device), {name: tensor.to(device) for name, tensor in given.items()}, outputs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_gradients_of_a_network(gpu: Any) -> None:
    compare(network(), gpu, ["h", "last"], x=torch.randn(4, 3, 2))


def test_examples_of_different_lengths(gpu: Any) -> None:
    length = torch.tensor([5, 1, 3], dtype=torch.int32)
    compare(network(ragged=True), gpu, ["last"], x=torch.randn(5, 3, 2), length=length)


def test_gradients_of_gradients(gpu: Any) -> None:
    g = gc.Graph("elman")
    t, n = g.axis("t"), g.axis("n")
    g.output("h", gc.cells.elman(g, g.input("x", (2,), over=(t, n)), 2, over=t).h)
    x = torch.randn(3, 2, 2)

    def twice(module: Any, x: Any) -> list[np.ndarray]:
        x.requires_grad_()
        (slope,) = torch.autograd.grad(module(x=x)["h"].pow(2).sum(), x, create_graph=True)
        slope.pow(2).sum().backward()
        return [tensor.grad.cpu().numpy() for tensor in (x, *module.parameters())]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module_of, "place_on", lambda *_: tensors.Cpu())
        expected = twice(module_of.Module(g, seed=0), x.clone())
    for found, value in zip(twice(module_of.Module(g, seed=0).to(gpu), x.clone().to(gpu)), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)


def test_running_statistics_move(gpu: Any) -> None:
    g = gc.Graph("norm")
    n = g.axis("n")
    g.output("y", gc.layers.batch_norm(g, g.input("x", (3,), over=n), over=n))
    compare(g, gpu, ["y"], x=torch.randn(8, 3))


def test_any_layout_of_a_tensor(gpu: Any) -> None:
    compare(network(), gpu, ["h"], x=torch.randn(3, 4, 2).transpose(0, 1))


def test_equal_results_do_not_share_memory(gpu: Any) -> None:
    g = gc.Graph("twice")
    y = gc.tanh(g.input("a", (2,)) + g.param("p", (2,)))
    g.output("y", y)
    g.output("again", y)
    found = module_of.Module(g).to(gpu)(a=torch.ones(2, device=gpu))
    before = found["again"].detach().clone()
    found["y"].mul_(3)
    assert torch.equal(found["again"], before)


def test_code_is_made_once_for_a_place_and_what_has_gradients(gpu: Any) -> None:
    module, x = module_of.Module(network()).to(gpu), torch.randn(4, 3, 2, device=gpu)
    for _ in range(2):
        module(x=x)["h"].sum().backward()
        with torch.no_grad():
            module(x=x)
    assert len(module._made) == 2


def test_a_module_computes_where_all_its_tensors_lie() -> None:
    module = module_of.Module(network())
    with pytest.raises(ArgumentError, match=r"x is a tensor on meta, but the module is on cpu; pass x.to\('cpu'\) or"):
        module(x=torch.empty(4, 3, 2, device="meta"))
    with pytest.raises(UnsupportedError, match="no code for tensors on meta"):
        module_of.Module(network()).to("meta")(x=torch.empty(4, 3, 2, device="meta"))
    parted = module_of.Module(network())
    parted.lstm_W_f = torch.nn.Parameter(parted.lstm_W_f.to("meta"))
    with pytest.raises(ArgumentError, match="move it as a whole"):
        parted(x=torch.empty(4, 3, 2))
