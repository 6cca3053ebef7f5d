"""Whether a regular expression keeps to our dialect, found by looking over its tokens, each with its position.

What Python's parser would warn of or read differently from one version to the next is refused here, so it only ever
sees what it reads without surprise. Knows no grammars.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from typing import Any

from ...errors import clipped
from .expressions import GuideError

MAX_CHARACTERS = 10_000
MAX_COUNT = 10_000
MAX_NESTING = 50

# The module is undocumented but has hardly changed in 20 years. It is typed nowhere under its new name.
_parser: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")

_TOKEN = re.compile(
    r"""
    \\.                                                         # an escape
  | \[ \^? \]? (?: \\. | [^\]\\] )* (?: \] | \Z )               # a set
  | \( \? \# [^)]* \)?                                          # a comment
  | \( (?: \? (?: P? < [=!]? | P? [=>] | [!:(] | [a-zA-Z-] )? )?  # what a group begins with
  | (?: [*+?] | \{ (?: [0-9]+ (?: , [0-9]* )? | , [0-9]* ) \} ) [?+]?  # how often
  | .
    """,
    re.VERBOSE | re.DOTALL,
)
_NO_PROPERTIES = "Unicode properties such as \\p{L} are not supported; write a set such as [a-zA-Z]"
_STARTS, _ENDS = ("^", r"\A"), ("$", r"\Z")
_GROUPS = ("(", "(?:", "(?P<")
_REFUSED = {
    **dict.fromkeys(("(?=", "(?!"), "lookahead is not supported"),
    **dict.fromkeys(("(?<=", "(?<!"), "lookbehind is not supported"),
    **dict.fromkeys((r"\b", r"\B"), "word boundaries are not supported"),
    **dict.fromkeys(("(?P=", *(rf"\{digit}" for digit in range(1, 10))), "backreferences are not supported"),
    **dict.fromkeys((f"(?{flag}" for flag in "aiLmsux-t"), "inline flags are not supported"),
    **dict.fromkeys((r"\p", r"\P"), _NO_PROPERTIES),
    "(?(": "conditions on groups are not supported",
    "(?>": "atomic groups are not supported; write (?:",
    "(?<": "named groups are written (?P<name>",
}
_PROPERTY_IN_SET = re.compile(r"\A(?:\\[^pP]|[^\\])*\\[pP]", re.DOTALL)
# Written twice, these are operators on sets in other dialects, as is a set in a set.
_DOUBTFUL = re.compile(r"\A\[\[|--|&&|~~|\|\|")


def parse(pattern: str) -> Any:
    """Python's parse tree of a pattern. Raises GuideError where it is no pattern of our dialect."""
    if len(pattern) > MAX_CHARACTERS:
        raise GuideError("", f"the pattern has {len(pattern):,} characters; {MAX_CHARACTERS:,} are possible")
    nesting = 0
    for position, token in _tokens(pattern):
        nesting += (token in _GROUPS) - (token == ")")
        problem = _problem(token)
        if nesting > MAX_NESTING:
            problem = f"groups are nested more than {MAX_NESTING} deep"
        if problem is not None:
            raise GuideError(f"character {position + 1}", problem)
    try:
        return _parser.parse(pattern)
    except re.error as error:
        place = "" if error.pos is None else f"character {error.pos + 1}"
        raise GuideError(place, clipped(error.msg, 300)) from error  # it may repeat a long part of the pattern


def misplaced(pattern: str) -> str:
    """The place of the first ^ or $ that is at no edge, of the pattern or of an alternative; "" where none is found."""
    tokens = list(_tokens(pattern))
    for index, (position, token) in enumerate(tokens):
        before = tokens[index - 1][1] if index else "|"
        after = tokens[index + 1][1] if index + 1 < len(tokens) else "|"
        if (token in _STARTS and before not in (*_STARTS, *_GROUPS, "|")) or (
            token in _ENDS and after not in (*_ENDS, ")", "|")
        ):
            return f"character {position + 1}"
    return _lone([position for position, token in tokens if token in (*_STARTS, *_ENDS)])


def lone_set(pattern: str) -> str:
    """The place of the only set in brackets; "" where there is none, or more than one."""
    return _lone([position for position, token in _tokens(pattern) if token[0] == "["])


def _lone(positions: list[int]) -> str:
    return f"character {positions[0] + 1}" if len(positions) == 1 else ""


def _tokens(pattern: str) -> Iterator[tuple[int, str]]:
    return ((match.start(), match.group()) for match in _TOKEN.finditer(pattern))


def _problem(token: str) -> str | None:
    """Why a token is not of our dialect."""
    if token[0] == "[" and (doubtful := _DOUBTFUL.search(re.sub(r"\\.", "", token, flags=re.DOTALL))):
        return f"{doubtful.group()[-2:]} in a set means different things elsewhere; write a backslash before each"
    if token[0] == "[" and _PROPERTY_IN_SET.match(token):
        return _NO_PROPERTIES
    if len(token) > 1 and token[-1] == "+" and token[0] in "*+?{":
        return "possessive repeats are not supported; leave out the last +"
    if token[0] == "{" and any(len(count) > 9 or int(count) > MAX_COUNT for count in re.findall("[0-9]+", token)):
        return f"repeats of more than {MAX_COUNT:,} are not supported"
    return _REFUSED.get(token)
