"""Phrases that explanations and profiles have in common."""

from __future__ import annotations

from collections.abc import Mapping


def many(count: int, noun: str) -> str:
    """A number of things: "1 step", "3 steps"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def at_lengths(lengths: Mapping[str, int]) -> str:
    """The lengths of axes: "t = 128, n = 32"."""
    return ", ".join(f"{name} = {length}" for name, length in lengths.items())
