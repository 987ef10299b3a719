"""Weights to and from other libraries: pure numpy, none of them is needed, and exact or refused.

forms.py      the cells that other libraries have, too, and the params of each
names.py      names of params: which layer and which direction a param is of
shapes.py     shapes written in letters, and what arrays they do not fit
gates.py      the gates of a cell as blocks of one array, and two biases that are added
framework.py  a library as a value, and both ways through it
pytorch.py, keras.py, onnx.py, flax.py  one library each
"""

from graphc.cells.convert.flax import from_flax, to_flax
from graphc.cells.convert.keras import from_keras, to_keras
from graphc.cells.convert.onnx import from_onnx, to_onnx
from graphc.cells.convert.pytorch import from_torch, to_torch

__all__ = ["from_flax", "from_keras", "from_onnx", "from_torch", "to_flax", "to_keras", "to_onnx", "to_torch"]
