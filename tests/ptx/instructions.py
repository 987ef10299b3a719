"""All instructions that the emulator knows: steps by opcode, and controls, which decide where threads go on."""

from __future__ import annotations

from tests.ptx import (
    atomics,
    barriers,
    conversions,
    copies,
    floats,
    flow,
    integers,
    matrices,
    mbarriers,
    moves,
    transfers,
    warps,
)
from tests.ptx.elementwise import Builder
from tests.ptx.flow import ControlBuilder

STEPS: dict[str, Builder] = {
    **integers.INSTRUCTIONS,
    **floats.INSTRUCTIONS,
    **conversions.INSTRUCTIONS,
    **moves.INSTRUCTIONS,
    **transfers.INSTRUCTIONS,
    **atomics.INSTRUCTIONS,
    **warps.INSTRUCTIONS,
    **copies.INSTRUCTIONS,
    **mbarriers.INSTRUCTIONS,
    "st": lambda i, d: (mbarriers.store_async if i.has("async") else transfers.build_store)(i, d),
}

CONTROLS: dict[str, ControlBuilder] = {
    **flow.CONTROLS,
    **barriers.CONTROLS,
    **warps.CONTROLS,
    **matrices.CONTROLS,
}
