"""Recurrent cells: functions that add a cell to a graph and return its states by name.

    cell = gc.cells.lstm(g, x, units, over=t)      # cell.h, cell.c

x is a vector over the axis `over` and any other axes, such as the batch; the states vary over the same axes. All
cells take the options of `Options`. A cell of your own is a function that does the same; see any file here. In the
equations ⊙ is the product of elements, σ the logistic function, and ′ marks the step before.
"""

import sys
from typing import NoReturn

from graphc.cells.compose import Bidirectional, Stack, bidirectional, stack
from graphc.cells.convert import from_flax, from_keras, from_onnx, from_torch, to_flax, to_keras, to_onnx, to_torch
from graphc.cells.elman import Jordan, elman, indrnn, jordan
from graphc.cells.gru import gru, mgu, ugrnn
from graphc.cells.lstm import LSTM, layer_norm_lstm, lstm, peephole_lstm, projected_lstm
from graphc.cells.matrix import GLA, MLSTM, RWKV7, DeltaNet, delta_net, gla, mlstm, rwkv7
from graphc.cells.minimal import min_gru, min_lstm, rg_lru
from graphc.cells.oscillator import Oscillator, cornn, lem
from graphc.cells.recurrence import Hidden, Options
from graphc.cells.selective import SelectiveSSM, selective_ssm
from graphc.cells.slstm import SLSTM, slstm
from graphc.cells.spatial import Spatial, spatial_rnn
from graphc.language.habits import missing_in

__all__ = [
    "GLA",
    "LSTM",
    "MLSTM",
    "RWKV7",
    "SLSTM",
    "Bidirectional",
    "DeltaNet",
    "Hidden",
    "Jordan",
    "Options",
    "Oscillator",
    "SelectiveSSM",
    "Spatial",
    "Stack",
    "bidirectional",
    "cornn",
    "delta_net",
    "elman",
    "from_flax",
    "from_keras",
    "from_onnx",
    "from_torch",
    "gla",
    "gru",
    "indrnn",
    "jordan",
    "layer_norm_lstm",
    "lem",
    "lstm",
    "mgu",
    "min_gru",
    "min_lstm",
    "mlstm",
    "peephole_lstm",
    "projected_lstm",
    "rg_lru",
    "rwkv7",
    "selective_ssm",
    "slstm",
    "spatial_rnn",
    "stack",
    "to_flax",
    "to_keras",
    "to_onnx",
    "to_torch",
    "ugrnn",
]


def __getattr__(name: str) -> NoReturn:
    raise missing_in(sys.modules[__name__], name)
