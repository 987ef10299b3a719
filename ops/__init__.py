"""The ops, a file for each family. `leaves` are what no op computes, `elementwise` and `random` compute an element from
those at its place; `event` and `window` say where in the event an element comes from, `axis` and `take` at which point,
`table` in which row; `reduction` and `contraction` sum. `composite` and `normalization` are formulas of these,
`gradient` has a derivative of the user's own. `site` is what a rule that lowers an op may ask for.

`TABLE` is the list of them all: adding an op means writing its rules and naming it here.
"""

from graphc.ir import Op
from graphc.ops.axis import AXIS
from graphc.ops.composite import CROSS_ENTROPY, DROPOUT, LOG_SOFTMAX, SOFTMAX
from graphc.ops.contraction import CONTRACT
from graphc.ops.elementwise import ELEMENTWISE
from graphc.ops.event import EVENT
from graphc.ops.gradient import CUSTOM_GRADIENT
from graphc.ops.leaves import CONST, COTANGENT, EXTENT, INDEX, INPUT, LEAVES, PARAM, STATE
from graphc.ops.normalization import NORMALIZATION
from graphc.ops.random import HASH
from graphc.ops.reduction import REDUCTION
from graphc.ops.table import GATHER, SCATTER
from graphc.ops.take import TAKE
from graphc.ops.window import FOLD, WINDOW

TABLE: dict[str, Op] = {
    op.name: op
    for op in (
        *LEAVES,
        CONST,
        INDEX,
        EXTENT,
        *ELEMENTWISE,
        *EVENT,
        *AXIS,
        *REDUCTION,
        CONTRACT,
        WINDOW,
        FOLD,
        TAKE,
        GATHER,
        SCATTER,
        SOFTMAX,
        LOG_SOFTMAX,
        CROSS_ENTROPY,
        DROPOUT,
        *NORMALIZATION,
        HASH,
        CUSTOM_GRADIENT,
    )
}

__all__ = ["CONST", "CONTRACT", "COTANGENT", "EXTENT", "INDEX", "INPUT", "LEAVES", "PARAM", "STATE", "TABLE"]
