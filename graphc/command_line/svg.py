"""What the pictures of a training have in common: the SVG around them, two colours, and names that are cut to fit."""

from __future__ import annotations

from collections.abc import Iterable

RIGHT, WRONG = "#0072b2", "#d55e00"  # distinguishable with every kind of colour vision


def document(width: float, height: float, elements: Iterable[str]) -> str:
    """An SVG of so many pixels: its elements on white."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif" font-size="12">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(elements) + "\n</svg>\n"
    )


def cut(name: str, room: int) -> str:
    """A name, cut to so many characters."""
    return name if len(name) <= room else name[: room - 1] + "…"
