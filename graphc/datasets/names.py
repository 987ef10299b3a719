"""Names of files and folders: their order, and how they are shown."""

from __future__ import annotations

import re

Key = tuple[tuple[tuple[int, str], ...], str]


def natural(name: str) -> Key:
    """A key to sort by in which numbers count as numbers: s2 stands before s10. No two names have the same."""
    parts = re.split("([0-9]+)", name)  # text and digits in turn, beginning with text
    return tuple((int(part), "") if k % 2 else (0, part.casefold()) for k, part in enumerate(parts)), name


def printable(name: str) -> str:
    """A name without line ends, terminal codes, or bytes that are no text: each is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
