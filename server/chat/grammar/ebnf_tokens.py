"""The words of EBNF text, with their places; what literals and classes in it say. Knows no rules.

Characters can be written as \\n \\r \\t \\" \\\\ \\xHH \\uHHHH \\UHHHHHHHH, and with a backslash before [ ] - ^.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .character_sets import LAST, class_of, complement
from .expressions import Characters, GuideError, Literal, merged

_TOKEN = re.compile(
    r"""
    (?P<space> (?: [ \t\r\n] | \#[^\n]* )+ )
  | (?P<name> [A-Za-z0-9_-]+ )
  | (?P<assign> ::= )
  | (?P<literal> " (?: [^"\\\r\n] | \\[^\r\n] )* " )
  | (?P<class> \[ (?: [^\]\\\r\n] | \\[^\r\n] )* \] )
  | (?P<count> \{ [^}\r\n]* \} )
  | (?P<mark> [()|*+?.] )
    """,
    re.VERBOSE,
)
_NOT_A_TOKEN = {
    '"': "the text is not closed on its line",
    "[": "the class is not closed on its line",
    "{": "the count is not closed on its line",
    "'": "texts stand in double quotes",
    "<": "tokens are not supported; write their text",
    "!": "tokens are not supported; write their text",
    "=": "rules are written name ::= ..., and lookahead is not supported",
    ":": "rules are written name ::= ...",
}


@dataclass(frozen=True, slots=True)
class Token:
    """A word of `kind`: one of the groups above, for a mark the mark itself, or `end`."""

    kind: str
    text: str
    offset: int


def tokens(text: str) -> Iterator[Token]:
    """The words of a grammar, at last `end`. Raises GuideError."""
    offset = 0
    while offset < len(text):
        match = _TOKEN.match(text, offset)
        if match is None:
            problem = _NOT_A_TOKEN.get(text[offset], f"{text[offset]!r} means nothing here")
            raise GuideError(place(text, offset), problem)
        if match.lastgroup != "space":
            kind = match.group() if match.lastgroup == "mark" else str(match.lastgroup)
            yield Token(kind, match.group(), offset)
        offset = match.end()
    yield Token("end", "", offset)


def place(text: str, offset: int) -> str:
    """Where this is, for people."""
    line_start = text.rfind("\n", 0, offset) + 1
    return f"line {text.count(chr(10), 0, offset) + 1}, column {offset - line_start + 1}"


_NUMBERED = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})")
_ESCAPES = {r"\n": 0x0A, r"\r": 0x0D, r"\t": 0x09, **{"\\" + each: ord(each) for each in '"\\[]-^'}}


def literal_from(text: str) -> Literal:
    """What a text with its quotes says. Raises GuideError."""
    return Literal("".join(chr(code_point) for code_point, _ in _characters(text[1:-1])))


def class_from(text: str) -> Characters:
    """What a class with its brackets says. Raises GuideError."""
    negated = text.startswith("[^")
    found = list(_characters(text[2 if negated else 1 : -1]))
    ranges: list[tuple[int, int]] = []
    at = 0
    while at < len(found):
        first, last, at = found[at][0], found[at][0], at + 1
        if at + 1 < len(found) and found[at] == (ord("-"), False):
            last, at = found[at + 1][0], at + 2
        if first > last:
            raise GuideError("", f"a range goes from low to high, not {chr(first)!r} to {chr(last)!r}")
        ranges.append((first, last))
    if not ranges:
        raise GuideError("", "the class is empty")
    return class_of(complement(tuple(ranges)) if negated else merged(ranges))


def _characters(text: str) -> Iterator[tuple[int, bool]]:
    """Code points; whether each was written with a backslash."""
    offset = 0
    while offset < len(text):
        written = text[offset]
        if written != "\\":
            code_point = ord(written)
        elif numbered := _NUMBERED.match(text, offset):
            written = numbered.group()
            code_point = int(written[2:], 16)
        else:
            written = text[offset : offset + 2]
            code_point = _escaped(written)
        if code_point > LAST or 0xD800 <= code_point <= 0xDFFF:
            raise GuideError("", f"{written!r} is no character")
        yield code_point, len(written) > 1
        offset += len(written)


def _escaped(written: str) -> int:
    if written not in _ESCAPES:
        known = " ".join([*_ESCAPES, r"\xHH \uHHHH \UHHHHHHHH"])
        raise GuideError("", f"{written} is not supported; write the character itself or one of {known}")
    return _ESCAPES[written]
