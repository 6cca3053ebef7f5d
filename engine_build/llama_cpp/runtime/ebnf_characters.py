"""The inside of EBNF's "literals" and [classes], turned into regular expressions of one character each.

Knows escapes and ranges; knows no grammar.
"""

import re
from collections.abc import Iterator

_CHARACTER = re.compile(r"\\x([0-9A-Fa-f]{2})|\\u([0-9A-Fa-f]{4})|\\U([0-9A-Fa-f]{8})|\\(.)|(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", **{mark: mark for mark in "\"\\'[]^-"}}
_DASH = (ord("-"), False)


class NotationError(ValueError):
    """What is wrong with a literal or a class."""


def regexes_of_literal(token: str) -> list[str]:
    """One regular expression for each character of a quoted text.

    Raises:
        NotationError: an unknown escape, or a number that is no character's.
    """
    return [f"[{_escaped(point)}]" for point, _ in _code_points(token[1:-1])]


def regex_of_class(token: str) -> str:
    """The regular expression of a class such as [a-z] or [^"].

    Raises:
        NotationError: it is empty, a range goes backwards, or as for literals.
    """
    negation = "^" if token.startswith("[^") else ""
    points = _code_points(token[1 + len(negation) : -1])
    if not points:
        raise NotationError(f"{token} names no character")
    return f"[{negation}{''.join(_ranges(points))}]"


def _code_points(text: str) -> list[tuple[int, bool]]:
    """Each character, and whether it was written with a backslash."""
    return [(_code_point(match), match.lastindex != 5) for match in _CHARACTER.finditer(text)]


def _code_point(match: re.Match[str]) -> int:
    number, escape = match[1] or match[2] or match[3], match[4]
    if escape and escape not in _ESCAPES:
        raise NotationError(f"unknown escape {match[0]}")
    point = int(number, 16) if number else ord(_ESCAPES[escape] if escape else match[5])
    if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
        raise NotationError(f"{match[0]} is no character")
    return point


def _ranges(points: list[tuple[int, bool]]) -> Iterator[str]:
    index = 0
    while index < len(points):
        is_range = index + 2 < len(points) and points[index + 1] == _DASH
        first, last = points[index][0], points[index + 2 if is_range else index][0]
        if last < first:
            raise NotationError(f"the range {chr(first)!a} to {chr(last)!a} goes backwards")
        yield f"{_escaped(first)}-{_escaped(last)}" if is_range else _escaped(first)
        index += 3 if is_range else 1


def _escaped(code_point: int) -> str:
    return f"\\x{{{code_point:X}}}"
