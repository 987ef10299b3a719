"""The tiles of products in assembly: accumulators and operands stay in registers, on machines with 16 and with 32."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import graphc as gc
from benchmarks.problems import Sequence
from graphc.codegen.tiling.tile import Step, best_tile

FEWEST = 8  # accumulators that make a loop the inside of a product


def innermost_loops(assembly: str) -> Iterator[str]:
    """The loops without a branch inside."""
    for found in re.finditer(r"^(\.LBB\w+):.*\n((?:\t.*\n)*?)\tj\w+\t\1\n", assembly, re.MULTILINE):
        yield found[2]


def products(assembly: str) -> list[str]:
    """The innermost loops that add to many accumulators."""
    accumulators = re.compile(r"vfmadd231ps\t.*, %([yz]mm\d+)\n")
    return [loop for loop in innermost_loops(assembly) if len(set(accumulators.findall(loop))) >= FEWEST]


@pytest.mark.parametrize("units", [32, 96, 256])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "sLSTM"])
@pytest.mark.parametrize("arch", ["x86-64-v3", "x86-64-v4"])
def test_products_do_not_touch_the_stack(arch: str, cell: str, units: int) -> None:
    graph = gc.grad(Sequence(cell, 2, 1, units).graph("loss"), "loss")
    found = products(gc.emit(graph, triple="x86_64-unknown-linux-gnu", arch=arch).assembly)
    assert found
    for loop in found:
        assert not re.search(r"\tv\w+\t.*%rsp", loop), loop


@pytest.mark.parametrize("arch", ["x86-64-v3", "x86-64-v4"])
def test_the_loop_of_a_product_advances_what_it_must(arch: str) -> None:
    """LLVM leaves the addresses as written: the index advances, and the one multiple of it that is read through."""
    g = gc.Graph("product")
    n, m = g.axis("n"), g.axis("m")
    a, b = g.input("a", (), over=(n, m)), g.input("b", (512,), over=m)
    g.output("y", gc.sum(a * b, over=m))
    (loop, *_) = products(gc.emit(g, triple="x86_64-unknown-linux-gnu", arch=arch).assembly)
    assert len(re.findall(r"\t(?:inc|add|sub|lea)q\t.*%r\w+\n", loop)) == 2, loop


@pytest.mark.parametrize("registers", [16, 32])
@pytest.mark.parametrize("sums", range(1, 9))
@pytest.mark.parametrize("terms", [1, 4])
def test_a_tile_fits_the_registers(registers: int, sums: int, terms: int) -> None:
    """Gates that share a row's operand, each with an operand of its own for every vector and term."""
    loads = ((True, False),) * terms + ((False, True),) * (sums * terms)
    tile = best_tile(Step(sums, sums * terms, loads, (32,), (16,), False, registers, 2 * registers))
    held = tile.rows if tile.by_vector else tile.vectors * sums
    assert tile.rows * tile.vectors * sums + held < registers
    assert tile.rows * tile.vectors * sums >= registers // 2 - sums
