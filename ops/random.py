"""hash: pseudo-random bits that are a pure function of a key and a counter, so a graph that draws numbers is still a
graph: unrolled, differentiated or run on another machine it draws the same ones.

The function is Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC 2011) with key (key, salt) and counter (counter, 0); its first word is the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import DtypeError
from graphc.ir import Node, Op, Type, broadcast_shapes, make, merge_axes
from graphc.ops.site import Site
from graphc.scalar import Const, Scalar, call

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
ROUNDS = 20


def _infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    if any(i.dtype != "int32" for i in inputs):
        raise DtypeError(f"a random number's key and counter are int32, got {', '.join(i.dtype for i in inputs)}")
    if not 0 <= attrs["salt"] < 2**32:
        raise DtypeError(f"a salt is a whole number from 0 to 2³² - 1, got {attrs['salt']}")
    return Type(merge_axes(*(i.axes for i in inputs)), broadcast_shapes([i.shape for i in inputs], "hash"), "int32")


def threefry(key: Any, salt: Any, counter: Any, word: Any) -> Any:
    """The generator, in any arithmetic whose words have `+`, `^` and `rotate` (see `ScalarWord` and `ArrayWord`)."""
    keys = (key, salt, key ^ salt ^ word(PARITY))
    a, b = counter + keys[0], keys[1]
    for r in range(ROUNDS):
        a = a + b
        b = b.rotate(ROTATIONS[r % 8]) ^ a
        if r % 4 == 3:
            step = r // 4 + 1
            a = a + keys[step % 3]
            b = b + keys[(step + 1) % 3] + word(step)
    return a


class ScalarWord:
    """32-bit words as expressions of the scalar language, each step named at the site that computes it."""

    def __init__(self, site: Site, value: Scalar) -> None:
        self.site = site
        self.value = value

    def _step(self, fn: str, left: Scalar, right: Scalar) -> ScalarWord:
        return ScalarWord(self.site, self.site.let(call(fn, left, right)))

    def __add__(self, other: ScalarWord) -> ScalarWord:
        return self._step("add", self.value, other.value)

    def __xor__(self, other: ScalarWord) -> ScalarWord:
        return self._step("xor", self.value, other.value)

    def rotate(self, places: int) -> ScalarWord:
        left = call("shl", self.value, Const(places, "int32"))
        return self._step("or", left, call("shr", self.value, Const(32 - places, "int32")))


class ArrayWord:
    """32-bit words as numpy arrays."""

    def __init__(self, value: Any) -> None:
        self.value = np.asarray(value, np.uint32)

    def __add__(self, other: ArrayWord) -> ArrayWord:
        return ArrayWord((self.value.astype(np.uint64) + other.value).astype(np.uint32))

    def __xor__(self, other: ArrayWord) -> ArrayWord:
        return ArrayWord(self.value ^ other.value)

    def rotate(self, places: int) -> ArrayWord:
        return ArrayWord((self.value << np.uint32(places)) | (self.value >> np.uint32(32 - places)))


def _compute(node: Node, arrays: Sequence[np.ndarray]) -> np.ndarray:
    key, counter = (np.asarray(a).astype(np.uint32) for a in arrays)
    bits = threefry(ArrayWord(key), ArrayWord(node["salt"]), ArrayWord(counter), ArrayWord)
    return np.broadcast_to(bits.value, node.shape).astype(np.int32)


def _lower(node: Node, site: Site) -> Scalar:
    def word(number: int) -> ScalarWord:
        return ScalarWord(site, Const(int(np.uint32(number).view(np.int32)), "int32"))

    key, counter = ScalarWord(site, site.read(0)), ScalarWord(site, site.read(1))
    result: ScalarWord = threefry(key, word(node["salt"]), counter, word)
    return result.value


HASH = Op("hash", _infer, _compute, None, _lower, cost=80, attributes=("salt",))


def hash_(key: Node, counter: Node, salt: int) -> Node:
    return make(HASH, (key, counter), salt=salt)
