"""Initialisers: their distributions, their dependence on nothing but seed and name, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc as gc
from graphc.errors import ArgumentError, GraphError
from graphc.language.initialisers import INITIALISERS


def array(init: str | float | None, shape: tuple[int, ...], seed: int = 0, **options: str) -> np.ndarray:
    g = gc.Graph("one")
    g.param("W", shape, init=init, **options)
    return gc.initialize(g, seed)["W"]


@pytest.mark.parametrize(
    ("init", "std"),
    [
        ("normal(0.3)", 0.3),
        ("uniform(0.6)", 0.6 / math.sqrt(3)),
        ("glorot_uniform", math.sqrt(2 / (300 + 200))),
        ("glorot_normal", math.sqrt(2 / (300 + 200))),
        ("xavier_normal", math.sqrt(2 / (300 + 200))),
        ("kaiming", math.sqrt(2 / 300)),
        ("kaiming_normal", math.sqrt(2 / 300)),
        ("kaiming_uniform", math.sqrt(2 / 300)),
        ("he_normal", math.sqrt(2 / 300)),
        ("he_uniform", math.sqrt(2 / 300)),
        ("lecun_normal", math.sqrt(1 / 300)),
        ("lecun_uniform", math.sqrt(1 / 300)),
    ],
)
def test_random_initialisers_have_their_variance(init: str, std: float) -> None:
    found = array(init, (200, 300))
    assert found.std() == pytest.approx(std, rel=0.02)
    assert abs(found.mean()) < 0.02 * std * 3
    if "uniform" in init:
        assert np.abs(found).max() <= std * math.sqrt(3) * (1 + 1e-6)
        assert np.abs(found).max() == pytest.approx(std * math.sqrt(3), rel=0.01)
    else:
        assert np.abs(found).max() > 3.5 * std


def test_a_convolutions_window_counts_in_both_fans() -> None:
    assert array("kaiming", (64, 32, 3, 3)).std() == pytest.approx(math.sqrt(2 / (32 * 9)), rel=0.03)
    assert array("glorot_normal", (64, 32, 3, 3)).std() == pytest.approx(math.sqrt(2 / (96 * 9)), rel=0.03)


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (4, 2, 3)])
def test_orthogonal_matrices_are(shape: tuple[int, ...]) -> None:
    q = array("orthogonal(2)", shape).astype(np.float64).reshape(shape[0], -1) / 2
    gram = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-6)


def test_constants() -> None:
    assert (array("zeros", (3,)) == 0).all()
    assert (array("ones", (3,)) == 1).all()
    assert (array(0.25, (2, 2)) == 0.25).all()
    np.testing.assert_array_equal(array("identity(0.5)", (2, 3)), [[0.5, 0, 0], [0, 0.5, 0]])
    np.testing.assert_array_equal(array("uniform(2, 2)", (2,)), [2, 2])
    assert array("zeros", ()).shape == array("normal", ()).shape == ()
    steps = array(3, (), dtype="int32")
    assert (steps.dtype, steps.shape, steps) == (np.int32, (), 3)


def test_the_default_is_glorot_for_matrices_and_zero_for_the_rest() -> None:
    np.testing.assert_array_equal(array(None, (4, 3)), array("glorot_uniform", (4, 3)))
    assert (array(None, (4,)) == 0).all()
    assert (array(None, (4, 3), dtype="int32") == 0).all()


names = st.sampled_from(["U", "W", "V", "lstm_W_f", "lstm_W_i", "b"])


@given(st.lists(names, unique=True, min_size=1), st.permutations(["U", "W", "V"]), st.integers(0, 2**40))
def test_an_array_depends_on_the_seed_and_its_name_alone(few: list[str], others: list[str], seed: int) -> None:
    small, large = gc.Graph("small"), gc.Graph("large", dtype="float64")
    for name in few:
        small.param(name, (3, 2), init="normal")
    for name in dict.fromkeys([*others, *few]):
        large.param(name, (3, 2), init="normal")
    first, second = gc.initialize(small, seed), gc.initialize(large, seed)
    for name in few:
        np.testing.assert_array_equal(first[name], second[name].astype(np.float32))
    assert len({a.tobytes() for a in second.values()}) == len(second)
    assert all((a != b).any() for a, b in zip(first.values(), gc.initialize(small, seed + 1).values(), strict=True))


@pytest.mark.parametrize("init", sorted(INITIALISERS))
def test_arrays_are_new_contiguous_writable_and_of_the_params_dtype(init: str) -> None:
    g = gc.Graph("one")
    g.param("W", (3, 4), init="uniform(1)" if init == "uniform" else init)
    first, second = gc.initialize(g)["W"], gc.initialize(g)["W"]
    assert first.dtype == np.float32
    assert first.shape == (3, 4)
    assert first.flags.c_contiguous
    first[...] = 7
    assert (second != 7).all()


@pytest.mark.parametrize(
    ("init", "shape", "message"),
    [
        ("glorot", (3, 2), "one of zeros, ones"),
        ("glorott_uniform", (3, 2), "did you mean 'glorot_uniform'?"),
        ("zeros(3)", (3, 2), "zeros takes no arguments"),
        ("normal(1, 2, 3)", (3, 2), "does not work"),
        ("normal(-1)", (3, 2), "standard deviation"),
        ("normal(small)", (3, 2), "does not work"),
        ("uniform", (3, 2), "does not work"),
        ("uniform(2, 1)", (3, 2), "empty"),
        ("orthogonal", (3,), "matrix"),
        ("identity", (2, 2, 2), "matrix"),
    ],
)
def test_what_does_not_work_is_refused_where_it_is_declared(init: str, shape: tuple[int, ...], message: str) -> None:
    g = gc.Graph("one")
    with pytest.raises(GraphError, match=message) as error:
        g.param("W", shape, init=init)
    assert 'g.param("W", shape' in str(error.value)
    assert not g.params


def test_random_integers_and_bad_seeds_are_refused() -> None:
    with pytest.raises(GraphError, match="int32"):
        array("normal", (2,), dtype="int32")
    for seed in (-1, 1.5, True):
        with pytest.raises(GraphError, match="seed"):
            array("normal", (2,), seed=seed)  # type: ignore[arg-type]


def test_params_of_more_than_the_machine_has_are_refused_before_memory_is_taken() -> None:
    g = gc.Graph("huge")
    g.param("W", (2**24, 2**24))
    with pytest.raises(ArgumentError, match=r"the params of graph 'huge' needs 1048576\.0 GiB"):
        gc.initialize(g)
