"""Printing graphs (placeholder)."""
from __future__ import annotations

from typing import Any


def print_graph(g: Any) -> str:
    return g.name
