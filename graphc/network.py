"""networkx (placeholder)."""
from __future__ import annotations

from typing import Any


def to_networkx(g: Any) -> Any:
    raise KeyError
