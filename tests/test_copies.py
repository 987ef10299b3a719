"""Copies and pickles of graphs: equal, on their own, and loaded without running anything but the parser."""

from __future__ import annotations

import copy
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given

import graphc as gc
from graphc import testing
from graphc.errors import UnsupportedError


def elman() -> gc.Graph:
    g = gc.Graph("elman")
    t = g.axis("t")
    x, W = g.input("x", (3,), over=t), g.param("W", (3, 3), init=np.eye(3))
    h = g.state("h", (3,), over=t)
    h[t] = gc.tanh(x + W @ h[t - 1])
    g.output("loss", gc.sum(gc.sum(h, over=t)))
    return g


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))])
def test_a_copy_is_an_equal_graph_of_its_own(duplicate) -> None:
    g = elman()
    again = duplicate(g)
    assert again == g
    assert again is not g
    again.output("more", again.value("h"))
    assert "more" not in g.outputs
    assert gc.compile(again)(x=np.ones((2, 3), np.float32), **gc.initialize(again))["loss"] != 0


@given(testing.graphs())
def test_any_graph_survives_a_pickle(example: testing.Example) -> None:
    assert pickle.loads(pickle.dumps(example.graph)) == example.graph


def test_a_pickle_holds_a_text_and_the_parser_alone() -> None:
    operations = list(pickletools.genops(pickle.dumps(elman())))
    strings = [argument for operation, argument, _ in operations if "UNICODE" in operation.name]
    assert strings == ["graphc.notation.parse", "parse", str(elman())]
    assert sum(operation.name == "REDUCE" for operation, _, _ in operations) == 1


def test_a_pickle_is_loaded_by_another_process() -> None:
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer), end='')"
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(elman()), capture_output=True, check=True)
    assert done.stdout.decode() == str(elman())


def test_what_holds_a_graph_and_its_values_is_copied_together() -> None:
    g = elman()
    model = copy.deepcopy({"graph": g, "h": g.value("h"), "axes": list(g.axes.values())})
    assert model["graph"] == g
    assert model["h"].graph is model["graph"]
    assert model["h"].node is g.value("h").node
    (t,) = model["axes"]
    model["graph"].output("last", model["h"][t.last])
    assert model["graph"].outputs["last"] is g.value("h")[g.axes["t"].last].node
    assert copy.copy(g.value("W")).node is g.value("W").node


def test_what_is_code_or_a_part_is_refused() -> None:
    g = elman()
    f = gc.compile(g)
    call = f.bind(x=np.ones((2, 3), np.float32), **gc.initialize(g))
    for code in (f, call):
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(UnsupportedError, match=r"pickle str\(graph\), and compile where it is loaded"):
                duplicate(code)
    with pytest.raises(UnsupportedError, match="pickle the graph"):
        pickle.dumps(g.value("h"))


def test_a_default_dtype_is_a_name() -> None:
    g = gc.Graph("double", dtype=np.float64)
    g.output("y", g.input("x", (2,)) * 0.5)
    assert g.dtype == "float64"
    assert gc.parse(str(g)) == g
    assert g == pickle.loads(pickle.dumps(g))
