"""PTX text into tokens, each with its line."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.ptx.errors import SyntaxMistake

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+ | //[^\n]* | /\*.*?\*/)
      | (?P<string>"[^"\n]*")
      | (?P<number>0[fF][0-9a-fA-F]{8}(?!\w) | 0[dD][0-9a-fA-F]{16}(?!\w) | 0[xX][0-9a-fA-F]+U? | 0[bB][01]+U?
                 | \d+\.\d*(?:[eE][+-]?\d+)? | \d+U?)
      | (?P<word>[A-Za-z_$%.](?:[\w$%.]|::)*)
      | (?P<mark>[][{}()<>,;:@!|+\-=*])""",
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    kind: str  # string, number, word or mark
    text: str
    line: int
    start: int


def tokens(source: str) -> list[Token]:
    """All tokens of a text, comments and blanks left out."""
    found: list[Token] = []
    position, line = 0, 1
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is None:
            if source[position] == "\0":  # the driver's texts end in one
                break
            raise SyntaxMistake(f"line {line}: no PTX token begins with {source[position : position + 20]!r}")
        kind, text = str(match.lastgroup), match.group()
        if kind != "space":
            found.append(Token(kind, text, line, position))
        line += text.count("\n")
        position = match.end()
    return found
