"""PTX text into tokens, and a cursor that walks along them."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.ptx.errors import SyntaxMistake

_BLANK = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<word>[A-Za-z_$%.](?:[\w$%.]|::)*)
      | (?P<mark>[][{}()<>,;:@!|+\-=*])
      | (?P<number>0[fF][0-9a-fA-F]{8}(?!\w) | 0[dD][0-9a-fA-F]{16}(?!\w) | 0[xX][0-9a-fA-F]+U? | 0[bB][01]+U?
                 | \d+\.\d*(?:[eE][+-]?\d+)? | \d+U?)
      | (?P<string>"[^"\n]*")
      | (?P<end>\Z|\0)""",
    re.VERBOSE,
)


class Token(NamedTuple):
    kind: str  # string, number, word, mark, or end
    text: str
    line: int
    start: int


def tokens(source: str) -> list[Token]:
    """All tokens of a text, comments and blanks left out; the last one is the end, also where a zero byte stands."""
    found: list[Token] = []
    position, line = 0, 1
    while True:
        blank = _BLANK.match(source, position)
        if blank is not None:
            line += source.count("\n", position, blank.end())
            position = blank.end()
        match = _TOKEN.match(source, position)
        if match is None:
            raise SyntaxMistake(f"line {line}: no PTX token begins with {source[position : position + 20]!r}")
        found.append(Token(str(match.lastgroup), match.group(), line, position))
        if match.lastgroup == "end":
            return found
        position = match.end()


class Cursor:
    """A position among a text's tokens."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens = tokens(source)
        self.at = 0

    @property
    def token(self) -> Token:
        """The next token."""
        return self.tokens[self.at]

    @property
    def line(self) -> int:
        """The next token's line."""
        return self.tokens[self.at].line

    def peek(self, ahead: int = 0) -> str:
        """The text of a token further on."""
        return self.tokens[min(self.at + ahead, len(self.tokens) - 1)].text

    def take(self, expected: str | None = None) -> str:
        """The next token's text, and on. SyntaxMistake: it is another one than expected, or the end."""
        token = self.tokens[self.at]
        if token.kind == "end":
            raise SyntaxMistake(f"line {token.line}: the text ends in the middle of a statement")
        if expected is not None and token.text != expected:
            raise SyntaxMistake(f"line {token.line}: expected {expected!r}, found {token.text!r}")
        self.at += 1
        return token.text

    def accept(self, text: str) -> bool:
        """Whether the next token is this one; then go on."""
        if self.tokens[self.at].text == text:
            self.at += 1
            return True
        return False

    def integer(self) -> int:
        """An integer, perhaps with a sign."""
        sign = -1 if self.accept("-") else 1
        token = self.token
        if token.kind != "number":
            raise SyntaxMistake(f"line {token.line}: expected a number, found {token.text!r}")
        return sign * int(self.take().rstrip("U"), 0)

    def skip_line(self) -> None:
        """Go on to the first token of a later line."""
        line = self.line
        while self.token.kind != "end" and self.line == line:
            self.at += 1

    def skip_past(self, text: str) -> None:
        """Go on behind the next such token."""
        while self.take() != text:
            pass
