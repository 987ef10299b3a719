"""What drawings write on values and arrows: the symbols of mathematics where there are any."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.ir import Axis, Node, size
from graphc.notation.literals import print_constant
from graphc.ops import CONST, CONTRACT, EXTENT, INDEX
from graphc.ops.axis import AS_AXIS, AS_DIM
from graphc.ops.elementwise import CAST, MUL
from graphc.ops.event import CONCAT, SLICE
from graphc.ops.reduction import BROADCAST, MAX, SUM
from graphc.ops.take import TAKE
from graphc.ops.window import FOLD, WINDOW, frames

INFIX = {
    "add": "+",
    "sub": "−",
    "mul": "×",
    "div": "÷",
    "pow": "^",
    "lt": "<",
    "le": "≤",
    "eq": "=",
    "ne": "≠",
    "logical_and": "∧",
    "logical_or": "∨",
    "floordiv": "//",
    "mod": "%",
}
NAMES = {
    "neg": "−",
    "logical_not": "¬",
    "sigmoid": "σ",
    "abs": "|·|",
    "sqrt": "√",
    "maximum": "max",
    "minimum": "min",
    "hash": "random",
    "gather": "embedding",
    "cross_entropy": "cross-entropy",
    "log_softmax": "log-softmax",
    "stop_gradient": "stop gradient",
    "transpose": "ᵀ",
    "place": "pad",
    "batch_norm": "batch norm",
}
WINDOWED = {CONTRACT: "conv", MAX: "max", SUM: "Σ"}  # ops that are written as one with the windows that they read
_SUPERSCRIPTS = str.maketrans("0123456789-+", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺")
_LONGEST = 12  # characters of a constant that is written out
_MOST_PARTS = 64  # of a value that is written out as a product of constants


def op_label(node: Node, operands: Sequence[Node]) -> str:
    """An op with those of its operands written in that are constants; the others come by arrows."""
    name = NAMES.get(node.op.name, node.op.name)
    windows = [i for i in node.inputs if i.op is WINDOW]
    if node.op in WINDOWED and windows:
        transposed = "transposed " * any(f.divisor > 1 for f in frames(windows[0]))
        return f"{transposed if node.op is CONTRACT else ''}{WINDOWED[node.op]} {frame_label(windows[0])}"
    if node.op in (WINDOW, FOLD):
        return f"{name} {frame_label(node)}"
    if node.op is AS_AXIS:
        return f"dim {node['dim']} → {node['axis'].name}"
    if node.op is AS_DIM:
        return f"{node['axis'].name} → dim {node['dim']}"
    if node.op is TAKE:
        return f"{node['axis'].name}.at(·)"
    if node.op is CONTRACT:
        constants = [constant_label(o) for o in operands if is_constant(o)]
        return " ".join(filter(None, [_product(node), *constants, _over(node["over"])]))
    if node.op in (SUM, MAX):
        return f"{'Σ' if node.op is SUM else 'max'} {_over(node['over']).removeprefix('Σ ')}".strip()
    if node.op is INDEX:
        return f"position in {node['axis'].name}"
    if node.op is EXTENT:
        return f"length of {node['axis'].name}"
    if node.op is SLICE:
        start, step, count = node["start"], node["step"], node["count"]
        return f"[{start}]" if count == 1 else f"[{start}:{start + step * count}{f':{step}' if step != 1 else ''}]"
    constants = [constant_label(o) if is_constant(o) else "" for o in operands]
    if node.op.name in INFIX:
        return _infix(INFIX[node.op.name], constants)
    if any(constants):
        return f"{name}({', '.join(c or '·' for c in constants)})"
    return "[ , ]" if node.op is CONCAT else name


def frame_label(node: Node) -> str:
    """The frames of a window or a fold: `3×3, stride 2`."""
    found = frames(node)
    said = ["×".join(str(f.size) for f in found)]
    for word, numbers in {
        "stride": [max(f.stride, f.divisor) for f in found],
        "dilation": [abs(f.dilation) for f in found],
    }.items():
        if set(numbers) != {1}:
            said.append(f"{word} {'×'.join(map(str, numbers)) if len(set(numbers)) > 1 else numbers[0]}")
    return ", ".join(said)


def _infix(symbol: str, constants: Sequence[str]) -> str:
    """`1 −`, `− 1`, or the symbol alone; a sum may have more than two operands."""
    if not any(constants):
        return symbol
    if constants[0] and not any(constants[1:]):
        return f"{constants[0]} {symbol}"
    return " ".join(f"{symbol} {c}" for c in constants if c)


def _product(node: Node) -> str:
    """@ for a product that sums over an event dimension, ⊗ for an outer one, · for numbers."""
    if set(node["a"] + node["b"]) - set(node["out"]):
        return "@"
    return "⊗" if node["out"] else "·"


def _over(axes: Iterable[Axis]) -> str:
    names = ", ".join(axis.name for axis in axes)
    return f"Σ {names}" if names else ""


def is_constant(node: Node) -> bool:
    """Whether a value is known from the graph and the lengths of its axes, and short enough to be written out."""
    waiting = [node]
    for _ in range(_MOST_PARTS):
        if not waiting:
            return True
        part = waiting.pop()
        if part.op in (MUL, CAST, BROADCAST):
            waiting += part.inputs
        elif part.op is not CONST and (part.op is not EXTENT or part.inputs):
            return False
    return False


def constant_label(node: Node) -> str:
    """A constant; where it is long, its shape. The length of an axis is |n|."""
    if node.op is EXTENT:
        return f"|{node['axis'].name}|"
    if node.op is not CONST:
        return "·".join(constant_label(i) for i in node.inputs)
    text = print_constant(node, node.dtype)
    if text.startswith("const(range("):
        return f"0…{size(node.shape) - 1}"
    return (
        text.replace("-", "−") if len(text) <= _LONGEST and not text.startswith("const") else f"const{list(node.shape)}"
    )


def delay_label(offsets: Iterable[tuple[Axis, int]], several_axes: bool) -> str:
    """The delay operator: z⁻¹ is one step back; where delays go along several axes it names its axis."""
    parts = [
        f"z{f'{offset:+d}'.translate(_SUPERSCRIPTS)}{f' ({axis.name})' if several_axes else ''}"
        for axis, offset in offsets
    ]
    return " ".join(parts)
