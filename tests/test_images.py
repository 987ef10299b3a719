"""Every layer of images against PyTorch in float64: outputs, all gradients, second derivatives, what training keeps.

The interpreter and compiled code are both compared. Skipped, visibly, where PyTorch is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.errors import ShapeError

torch = pytest.importorskip("torch")
F = torch.nn.functional

Arrays = dict[str, np.ndarray]
N = 2
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def layer(build: Callable[..., gc.Value], arrays: Arrays) -> gc.Graph:
    """A graph with output y. Arrays in capitals are params, the others inputs over n; `build` takes g, n and these."""
    g = gc.Graph("layer", dtype="float64")
    n = g.axis("n")
    values = [
        g.param(name, a.shape) if name.isupper() else g.input(name, a.shape[1:], over=n, dtype=a.dtype.name)
        for name, a in arrays.items()
    ]
    g.output("y", build(g, n, *values))
    return g


def twice(once: gc.Graph, moved: list[str], n: Any) -> gc.Graph:
    """All second derivatives at once: the gradient of Σ gradient · direction, with a direction for each gradient."""
    g, total = once.copy(), None
    for name in moved:
        gradient = g.value(f"grad_{name}")
        direction = g.input(f"direction_{name}", gradient.shape, over=gradient.axes)
        term = gc.sum(gradient * direction)
        term = gc.sum(term, over=n) if term.axes else term
        total = term if total is None else total + term
    assert total is not None
    g.output("slope", total)
    return gc.grad(g, "slope", [*moved, "cotangent_y"])


def agree(
    build: Callable[..., gc.Value], reference: Callable[..., Any], arrays: Arrays, second: bool = False
) -> Arrays:
    """Output, gradients and, on request, second derivatives are PyTorch's; returned as the compiler found them."""
    operands = {k: torch.tensor(a, requires_grad=a.dtype == np.float64) for k, a in arrays.items()}
    moved = [k for k, v in operands.items() if v.requires_grad]
    y = reference(*(v if v.requires_grad else v.long() for v in operands.values()))
    cotangent = torch.tensor(normal(*y.shape, seed=1), requires_grad=True)
    gradients = torch.autograd.grad(y, [operands[k] for k in moved], cotangent, create_graph=second)
    expected = {"y": y, **{f"grad_{k}": d for k, d in zip(moved, gradients, strict=True)}}
    given = {**arrays, "cotangent_y": cotangent.detach().numpy()}

    g = layer(build, arrays)
    dg = gc.vjp(g, "y", moved)
    if second:
        directions = {f"direction_{k}": normal(*arrays[k].shape, seed=2) for k in moved}
        slope = sum(
            (d * torch.tensor(directions[f"direction_{k}"])).sum() for k, d in zip(moved, gradients, strict=True)
        )
        variables = {**{k: operands[k] for k in moved}, "cotangent_y": cotangent}
        found = torch.autograd.grad(slope, list(variables.values()), allow_unused=True)
        for (name, variable), d in zip(variables.items(), found, strict=True):
            label = f"grad_slope_{name}" if name in moved else f"grad_{name}"
            expected[label] = torch.zeros_like(variable) if d is None else d
        dg, given = twice(dg, moved, g.axes["n"]), {**given, **directions}

    results = (gc.interpret(dg, **given), gc.compile(dg)(**given))
    for result in results:
        for name, value in expected.items():
            np.testing.assert_allclose(result[name], value.detach(), rtol=1e-10, atol=1e-11, err_msg=name)
    return dict(results[1])


# Convolution, and the way back.


@dataclass(frozen=True)
class Geometry:
    """A window over events (groups · channels, *extents)."""

    groups: int
    channels: int
    filters: int
    extents: tuple[int, ...]
    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.extents)

    @property
    def sliding(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def image(self) -> np.ndarray:
        return normal(N, self.groups * self.channels, *self.extents)


@st.composite
def geometries(draw: st.DrawFn, pooling: bool = False) -> Geometry:
    """Windows that fit somewhere; those of pooling are padded by half of their size at most, as PyTorch has it."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    groups, channels, filters = draw(st.sampled_from([(1, 1, 2), (1, 3, 17), (1, 17, 3), (2, 1, 1), (3, 2, 3)]))
    each = [
        (
            size := draw(st.integers(1, 3)),
            draw(st.integers(1, 3)),
            padding := draw(st.integers(0, size // 2 if pooling else 3)),
            dilation := draw(st.integers(1, 2)),
            max(1, dilation * (size - 1) + 1 - 2 * padding * (not pooling)) + draw(st.integers(0, 4)),
        )
        for _ in range(rank)
    ]
    sizes, strides, paddings, dilations, extents = zip(*each, strict=True)
    return Geometry(groups, channels, filters, extents, sizes, strides, paddings, dilations)


@settings(max_examples=16)
@given(geometries())
def test_conv(at: Geometry) -> None:
    arrays = {"x": at.image(), "W": normal(at.groups * at.filters, at.channels, *at.size)}
    agree(
        lambda g, n, x, W: gc.conv(x, W, **at.sliding, groups=at.groups),
        lambda x, W: CONV[at.rank](x, W, **at.sliding, groups=at.groups),
        arrays,
    )


@settings(max_examples=16)
@given(geometries(), st.data())
def test_conv_transpose(at: Geometry, data: st.DataObject) -> None:
    least = [
        max(1, -((d * (k - 1) + 1 - 2 * p - 1) // s))
        for k, s, p, d in zip(at.size, at.stride, at.padding, at.dilation, strict=True)
    ]
    more = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(at.stride, at.dilation, strict=True))
    extents = tuple(a + b for a, b in zip(at.extents, least, strict=True))
    arrays = {
        "x": normal(N, at.groups * at.channels, *extents),
        "W": normal(at.groups * at.channels, at.filters, *at.size),
    }
    options = {**at.sliding, "groups": at.groups, "output_padding": more}
    agree(
        lambda g, n, x, W: gc.conv_transpose(x, W, **options),
        lambda x, W: CONV_TRANSPOSE[at.rank](x, W, **options),
        arrays,
    )


def test_one_number_stands_for_every_dimension() -> None:
    arrays = {"x": normal(N, 2, 7, 8), "W": normal(3, 2, 2, 2)}
    agree(
        lambda g, n, x, W: gc.conv(x, W, stride=2, padding=1, dilation=2),
        lambda x, W: F.conv2d(x, W, stride=2, padding=1, dilation=2),
        arrays,
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_second_derivatives_of_convolutions(groups: int) -> None:
    arrays = {"x": normal(N, 4, 6, 5), "W": normal(6, 4 // groups, 3, 2), "V": normal(6, 4 // groups, 3, 3)}
    agree(
        lambda g, n, x, W, V: gc.conv_transpose(
            gc.tanh(gc.conv(x, W, stride=(2, 1), padding=1, groups=groups)), V, stride=2, groups=groups
        ),
        lambda x, W, V: F.conv_transpose2d(
            torch.tanh(F.conv2d(x, W, stride=(2, 1), padding=1, groups=groups)), V, stride=2, groups=groups
        ),
        arrays,
        second=True,
    )


def test_a_convolution_is_linear_and_its_transpose_is_the_adjoint() -> None:
    """⟨conv(x, W), y⟩ = ⟨x, conv_transpose(y, W)⟩."""
    x, W, y = normal(1, 2, 7, 6), normal(3, 2, 3, 2), normal(1, 3, 4, 7)
    forward = layer(lambda g, n, x, W: gc.conv(x, W, stride=(2, 1), padding=1), {"x": x, "W": W})
    back = layer(lambda g, n, y, W: gc.conv_transpose(y, W, stride=(2, 1), padding=1), {"y": y, "W": W})
    there, here = gc.compile(forward)(x=x, W=W)["y"], gc.compile(back)(y=y, W=W)["y"]
    assert (there * y).sum() == pytest.approx((x * here).sum(), rel=1e-12)


# Pooling. PyTorch's maximum gives a tie to the first of the largest, so values here are distinct.


@settings(max_examples=16)
@given(geometries(pooling=True))
def test_max_pool(at: Geometry) -> None:
    agree(
        lambda g, n, x: gc.max_pool(x, at.size, **at.sliding),
        lambda x: MAX_POOL[at.rank](x, at.size, **at.sliding),
        {"x": at.image()},
    )


@settings(max_examples=16)
@given(geometries(pooling=True))
def test_avg_pool(at: Geometry) -> None:
    agree(
        lambda g, n, x: gc.avg_pool(x, at.size, at.stride, at.padding),
        lambda x: AVG_POOL[at.rank](x, at.size, at.stride, at.padding, count_include_pad=False),
        {"x": at.image()},
    )


def test_the_stride_of_pooling_is_its_size_by_default() -> None:
    x = normal(N, 3, 6, 7)
    agree(lambda g, n, x: gc.max_pool(x, (2, 3)), lambda x: F.max_pool2d(x, (2, 3)), {"x": x}, second=True)
    agree(lambda g, n, x: gc.avg_pool(x, (2, 3)), lambda x: F.avg_pool2d(x, (2, 3)), {"x": x}, second=True)


def test_pooling_everything_is_a_mean() -> None:
    x = {"x": normal(N, 3, 6, 7)}
    agree(lambda g, n, x: gc.mean(x, dim=(1, 2)), lambda x: x.mean((2, 3)), x)
    agree(lambda g, n, x: gc.avg_pool(x, (6, 7)), lambda x: F.adaptive_avg_pool2d(x, 1), x)


def test_equal_elements_share_the_gradient_of_max_pool() -> None:
    g = layer(lambda g, n, x: gc.max_pool(x, 2), {"x": np.ones((1, 1, 2, 2))})
    shared = gc.compile(gc.vjp(g, "y", ["x"]))(x=np.ones((1, 1, 2, 2)), cotangent_y=np.ones((1, 1, 1, 1)))["grad_x"]
    np.testing.assert_array_equal(shared, np.full((1, 1, 2, 2), 0.25))


def test_layers_in_groups_are_pytorchs() -> None:
    g = gc.Graph("groups", dtype="float64")
    x = g.input("x", (4, 5, 6), over=g.axis("n"))
    g.output("down", gc.layers.conv(g, x, 6, size=3, groups=2))
    g.output("up", gc.layers.conv_transpose(g, x, 6, size=2, stride=2, groups=2, output_padding=1))
    arrays = {"x": normal(N, 4, 5, 6), **gc.initialize(g)}
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    found = gc.compile(g)(**arrays)
    down = F.conv2d(tensors["x"], tensors["conv_W"], tensors["conv_b"], groups=2)
    weight, bias = tensors["conv_transpose_W"], tensors["conv_transpose_b"]
    up = F.conv_transpose2d(tensors["x"], weight, bias, stride=2, groups=2, output_padding=1)
    np.testing.assert_allclose(found["down"], down, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found["up"], up, rtol=1e-12, atol=1e-14)
    with pytest.raises(ShapeError, match="of 5 channels is in groups of equal size; got groups=2"):
        gc.layers.conv_transpose(g, x, 5, size=2, groups=2, name="odd")


# Normalisation.


def wide(v: Any) -> Any:
    return v.reshape(-1, 1, 1)


@pytest.mark.parametrize("shape", [(3,), (17, 5), (3, 4, 5)])
def test_batch_norm_in_training(shape: tuple[int, ...]) -> None:
    dims = tuple(range(1, len(shape)))
    arrays = {"x": 3 * normal(5, *shape) + 2, "G": normal(*shape[:1]), "B": normal(*shape[:1], seed=3)}

    def build(g: gc.Graph, n: Any, x: gc.Value, G: gc.Value, B: gc.Value) -> gc.Value:
        channels = (shape[0], *(1 for _ in dims))
        y = gc.batch_norm(x, np.zeros(channels), np.ones(channels), over=n, dim=dims, eps=1e-3)
        return G.reshape(*channels) * y + B.reshape(*channels)

    agree(build, lambda x, G, B: F.batch_norm(x, None, None, G, B, training=True, eps=1e-3), arrays, second=True)


def test_batch_norm_after_training() -> None:
    mean, variance = normal(3), normal(3, seed=4) ** 2
    g = layer(
        lambda g, n, x: gc.batch_norm(x, wide(g.param("m", (3,))), wide(g.param("v", (3,))), over=n),
        {"x": normal(N, 3, 4, 5)},
    )
    given = {"x": normal(N, 3, 4, 5), "m": mean, "v": variance}
    given["cotangent_y"] = normal(N, 3, 4, 5, seed=1)
    x = torch.tensor(given["x"], requires_grad=True)
    y = F.batch_norm(x, torch.tensor(mean), torch.tensor(variance))
    y.backward(torch.tensor(given["cotangent_y"]))
    dg = gc.vjp(gc.inference(g), "y", ["x"])
    for found in (gc.interpret(dg, **given), gc.compile(dg)(**given)):
        np.testing.assert_allclose(found["y"], y.detach(), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(found["grad_x"], x.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("convention", ["pytorch", "neon"])
def test_running_statistics_follow_the_batches(convention: Any) -> None:
    """Three steps of training move params and statistics as a PyTorch module does; neon's variance is the population's.

    After training the layer is the module in its mode of evaluation.
    """
    neon = convention == "neon"
    g = gc.Graph("norm", dtype="float64")
    n = g.axis("n")
    y = gc.layers.batch_norm(g, g.input("x", (3, 4, 5), over=n), over=n, convention=convention)
    g.output("y", y)
    g.output("loss", gc.mean(gc.sum(gc.tanh(y)), over=n))
    step = gc.compile(gc.training_step(g, "loss", gc.optim.SGD(lr=0.1)))
    state = gc.initialize(gc.training_step(g, "loss", gc.optim.SGD(lr=0.1)))

    module = torch.nn.BatchNorm2d(3, eps=1e-3 if neon else 1e-5, dtype=torch.float64)
    if neon:
        module.running_var.zero_()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for k in range(3):
        x = (k + 1) * normal(5, 3, 4, 5, seed=k) + k
        loss = step(x=x, **state)["loss"]
        optimizer.zero_grad()
        expected = torch.tanh(module(torch.tensor(x))).sum((1, 2, 3)).mean()
        expected.backward()
        optimizer.step()
        assert loss == pytest.approx(expected.item(), rel=1e-12)
    sample_to_population = (5 * 20 - 1) / (5 * 20) if neon else 1.0
    with torch.no_grad():
        module.running_var.mul_(sample_to_population)
    kept = {"gamma": module.weight, "beta": module.bias, "mean": module.running_mean, "var": module.running_var}
    for name, value in kept.items():
        np.testing.assert_allclose(state[f"norm_{name}"], value.detach(), rtol=1e-11, err_msg=name)

    x, model = normal(N, 3, 4, 5, seed=9), gc.inference(gc.select(g, "y"))
    expected = module.eval()(torch.tensor(x)).detach()
    before = {name: a.copy() for name, a in state.items()}
    params = {name: state[name] for name in model.params}
    np.testing.assert_allclose(gc.compile(model)(x=x, **params)["y"], expected, rtol=1e-11)
    np.testing.assert_allclose(gc.interpret(model, x=x, **params)["y"], expected, rtol=1e-11)
    assert all((state[name] == before[name]).all() for name in state)


def test_a_momentum_of_its_own() -> None:
    g = gc.Graph("norm", dtype="float64")
    n = g.axis("n")
    g.output("y", gc.layers.batch_norm(g, g.input("x", (2, 3), over=n), over=n, eps=0.5, momentum=1.0))
    x, state = normal(4, 2, 3), gc.initialize(g)
    y = gc.compile(g)(x=x, **state)["y"]
    np.testing.assert_allclose(y, F.batch_norm(torch.tensor(x), None, None, training=True, eps=0.5), rtol=1e-12)
    np.testing.assert_allclose(state["norm_mean"], x.mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(state["norm_var"], x.var((0, 2), ddof=1), rtol=1e-12)


def test_standardize_is_layer_group_and_instance_norm() -> None:
    arrays = {"x": normal(3, 4, 5, 6)}
    agree(lambda g, n, x: gc.standardize(x), lambda x: F.layer_norm(x, (4, 5, 6)), arrays, second=True)
    agree(lambda g, n, x: gc.standardize(x, dim=(1, 2)), lambda x: F.instance_norm(x), arrays)
    agree(
        lambda g, n, x: gc.standardize(x.reshape(2, 2, 5, 6), dim=(1, 2, 3), eps=0.1).reshape(4, 5, 6),
        lambda x: F.group_norm(x, 2, eps=0.1),
        arrays,
    )


def test_dropout_zeroes_its_share_and_the_gradient_with_it() -> None:
    g = layer(lambda g, n, x: gc.dropout(x, 0.3, g.input("seed", (), dtype="int32")), {"x": np.ones((9, 8, 7, 6))})
    dg = gc.vjp(g, "y", ["x"])
    given = {"x": normal(9, 8, 7, 6), "cotangent_y": np.ones((9, 8, 7, 6))}
    results = [gc.compile(dg)(**given, seed=np.int32(k)) for k in range(2)]
    for found in results:
        kept = found["y"] != 0
        assert kept.mean() == pytest.approx(0.7, abs=0.04)  # five standard deviations of 3,024 draws
        assert kept.mean((0, 2, 3)) == pytest.approx(0.7, abs=0.12)
        np.testing.assert_allclose(found["y"], np.where(kept, given["x"] / 0.7, 0), rtol=1e-12)
        np.testing.assert_allclose(found["grad_x"], np.where(kept, 1 / 0.7, 0), rtol=1e-12)
    assert ((results[0]["y"] != 0) != (results[1]["y"] != 0)).any()
    np.testing.assert_array_equal(gc.interpret(dg, **given, seed=np.int32(1))["y"], results[1]["y"])
    model = gc.inference(g)
    after = {"seed": np.int32(0)} if "seed" in model.inputs else {}
    np.testing.assert_array_equal(gc.compile(model)(x=given["x"], **after)["y"], given["x"])


# Blocks, channels and classes.


@settings(max_examples=12)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from(["chw", "hwc"]),
)
def test_blocks_and_back(counts: tuple[int, int, int], size: tuple[int, int], order: str) -> None:
    (channels, rows, columns), (high, wide) = counts, size
    x = normal(N, channels, rows * high, columns * wide)

    def build(g: gc.Graph, n: Any, x: gc.Value) -> gc.Value:
        cut = gc.blocks(x, size, order=order)
        i, j = cut.axes[:2]
        g.output("blocks", cut)
        return gc.image(cut * cut, (i, j), size, order=order)

    found = agree(build, lambda x: x * x, {"x": x})
    parts = x.reshape(N, channels, rows, high, columns, wide)
    flat = parts.transpose(2, 4, 0, 1, 3, 5) if order == "chw" else parts.transpose(2, 4, 0, 3, 5, 1)
    np.testing.assert_array_equal(found["blocks"], flat.reshape(rows, columns, N, -1))


def test_blocks_of_one_pixel_are_the_pixels() -> None:
    g = layer(lambda g, n, x: gc.blocks(x, 1), {"x": normal(N, 3, 2, 4)})
    np.testing.assert_array_equal(gc.compile(g)(x=normal(N, 3, 2, 4))["y"], normal(N, 3, 2, 4).transpose(2, 3, 0, 1))


def test_concatenation_over_channels() -> None:
    arrays = {"a": normal(N, 3, 4, 5), "b": normal(N, 1, 4, 5), "W": normal(2, 7, 3, 3)}
    agree(
        lambda g, n, a, b, W: gc.conv(gc.concat([a, gc.tanh(b), a], dim=0), W),
        lambda a, b, W: F.conv2d(torch.cat([a, torch.tanh(b), a], 1), W),
        arrays,
        second=True,
    )


def test_softmax_and_cross_entropy_over_channels() -> None:
    """A class for every pixel."""
    labels = np.random.default_rng(0).integers(0, 3, (N, 4, 5)).astype(np.int32)
    arrays = {"x": 4 * normal(N, 3, 4, 5), "label": labels}
    agree(
        lambda g, n, x, label: gc.cross_entropy(x, label, dim=0),
        lambda x, label: F.cross_entropy(x, label, reduction="none"),
        arrays,
        second=True,
    )
    agree(lambda g, n, x: gc.softmax(x, dim=0), lambda x: torch.softmax(x, 1), {"x": arrays["x"]}, second=True)
