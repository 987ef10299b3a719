"""What drawings write on values and arrows: the symbols of mathematics where there are any."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.ir import Axis, Node, size
from graphc.notation.literals import print_constant
from graphc.ops import CONST, CONTRACT, EXTENT, INDEX
from graphc.ops.event import CONCAT, SLICE
from graphc.ops.reduction import MAX, SUM

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
}
_SUPERSCRIPTS = str.maketrans("0123456789-+", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺")
_LONGEST = 12  # characters of a constant that is written out


def op_label(node: Node, operands: Sequence[Node]) -> str:
    """An op with those of its operands written in that are constants; the others come by arrows."""
    name = NAMES.get(node.op.name, node.op.name)
    if node.op is CONTRACT:
        constants = [constant_label(o) for o in operands if o.op is CONST]
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
    constants = [constant_label(o) if o.op is CONST else "" for o in operands]
    if node.op.name in INFIX:
        return _infix(INFIX[node.op.name], constants)
    if any(constants):
        return f"{name}({', '.join(c or '·' for c in constants)})"
    return "[ , ]" if node.op is CONCAT else name


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


def constant_label(node: Node) -> str:
    """A constant; where it is long, its shape."""
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
