"""Source code as tokens, and stretches of them whose brackets match: enough to read the heads of functions and types.

No parser of the whole language stands behind this, on purpose. Parsers that recover from errors take long for code that
is made to confuse them; here time grows with the length only. Knows no languages' statements and no schemas.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

_Word: TypeAlias = tuple[str, str, int]  # kind, text, offset

# Nothing here fails once it has begun, so no character is looked at often: what is not closed ends with line or text.
_QUOTED = r"""'[^\\\n']*(?:\\.[^\\\n']*)*'?|"[^\\\n"]*(?:\\.[^\\\n"]*)*"?"""
_BLOCKS = r"""'''[^\\']*(?:(?:\\.|'(?!''))[^\\']*)*(?:''')?|\"""[^\\"]*(?:(?:\\.|"(?!""))[^\\"]*)*(?:\""")?"""
_NUMBER = r"\.?\d(?:\w|\.(?=\w)|(?<=[eE])[+-](?=\d))*"

_PYTHON = re.compile(
    r"(?P<space>[^\S\n]+|\\\r?\n|\#[^\n]*)|(?P<newline>\n)"
    rf"|(?P<string>(?i:[rbuf]{{0,2}})(?:{_BLOCKS}|{_QUOTED}))"
    rf"|(?P<name>[^\W\d]\w*)|(?P<number>{_NUMBER})|(?P<mark>\*\*|->|:=|[=!<>]=|\.\.\.|.)",
    re.DOTALL,
)
_TYPESCRIPT = re.compile(
    r"(?P<space>[^\S\n]+|//[^\n]*|/\*(?:[^*]|\*(?!/))*(?:\*/)?)|(?P<newline>\n)"
    rf"|(?P<string>{_QUOTED})"
    rf"|(?P<name>(?:[^\W\d]|[$\#])[\w$]*)|(?P<number>{_NUMBER})|(?P<mark>=>|===?|!==?|\.\.\.|.)",
    re.DOTALL,
)
_TEMPLATE = re.compile(r"[^`\\$]*(?:(?:\\.|\$(?!\{))[^`\\$]*)*", re.DOTALL)
_PATTERN = re.compile(r"/[^/\\\[\n]*(?:(?:\\.|\[[^\]\\\n]*(?:\\.[^\]\\\n]*)*\]?)[^/\\\[\n]*)*/?\w*")
_BEFORE_PATTERN = frozenset(("return", "typeof", "case", "in", "of", "delete", "void", "throw", "else", "do"))

_OPENING = {")": ("(",), "]": ("[",), "}": ("{", "${")}
_OPENERS = frozenset(("(", "[", "{", "${"))


class Token(NamedTuple):
    """A word of the code. `column` is where it stands if it is the first of its line, else -1."""

    kind: str  # name, number, string, template, pattern or mark
    text: str
    column: int


_NOTHING = Token("", "", -1)


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """A stretch of code. Positions count from its start."""

    tokens: list[Token]
    closers: Mapping[int, int]  # in `tokens`: where each bracket that is closed is closed
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def token(self, position: int) -> Token:
        """The token there; one without text outside the span."""
        index = self.start + position
        return self.tokens[index] if self.start <= index < self.end else _NOTHING

    def text(self, position: int) -> str:
        """The text of the token there."""
        return self.token(position).text

    def part(self, start: int, end: int | None = None) -> Span:
        """From a position up to another, or up to the end."""
        first = min(self.start + start, self.end)
        last = self.end if end is None else max(first, min(self.start + end, self.end))
        return Span(self.tokens, self.closers, first, last)

    def closer(self, position: int) -> int | None:
        """Where the bracket at a position is closed; None if it is not, or if no bracket opens there."""
        index = self.closers.get(self.start + position)
        return None if index is None or index >= self.end else index - self.start

    def inside(self, position: int) -> Span:
        """What stands between the brackets that open at a position; nothing if none do."""
        closer = self.closer(position)
        return self.part(position + 1, closer) if closer is not None else self.part(0, 0)

    def after(self, position: int) -> int:
        """The position after this token, or after all of the brackets that open here."""
        return self._next(self.start + position) - self.start

    def _next(self, index: int) -> int:
        closer = self.closers.get(index, self.end)
        return (closer if closer < self.end else index) + 1

    def find(self, marks: Collection[str], start: int = 0, *, angles: bool = False) -> int:
        """The first of these tokens that is not inside brackets; the length if there is none.

        `angles`: < and > are brackets too, as they are in types.
        """
        index, depth = self.start + start, 0
        while index < self.end:
            text = self.tokens[index].text
            if depth <= 0 and text in marks:
                break
            if angles and text in ("<", ">"):
                depth += 1 if text == "<" else -1
            index = self._next(index)
        return min(index, self.end) - self.start

    def split(self, mark: str, *, angles: bool = False) -> list[Span]:
        """The parts between these tokens that are not inside brackets. Without an empty last part."""
        parts, start = [], 0
        while start < len(self):
            end = self.find((mark,), start, angles=angles)
            parts.append(self.part(start, end))
            start = end + 1
        return parts


def python_tokens(code: str) -> Span:
    """All of Python code."""
    return _span((found.lastgroup or "", found[0], found.start()) for found in _PYTHON.finditer(code))


def typescript_tokens(code: str) -> Span:
    """All of TypeScript or JavaScript code."""
    return _span(_typescript_words(code))


def _span(words: Iterable[_Word]) -> Span:
    tokens: list[Token] = []
    line_start: int | None = 0  # None: a token of the line has been there already
    for kind, text, offset in words:
        if kind == "newline":
            line_start = offset + 1
        elif kind != "space":
            tokens.append(Token(kind, text, -1 if line_start is None else offset - line_start))
            line_start = None
    return Span(tokens, _closers(tokens), 0, len(tokens))


def _closers(tokens: list[Token]) -> dict[int, int]:
    closers: dict[int, int] = {}
    pending: list[int] = []  # brackets that are open
    counts = dict.fromkeys(_OPENERS, 0)
    for index, token in enumerate(tokens):
        if token.text in _OPENERS:
            pending.append(index)
            counts[token.text] += 1
        elif any(counts[each] for each in _OPENING.get(token.text, ())):
            # One that is closed closes those inside it, which are missing theirs.
            while (opener := tokens[pending[-1]].text) not in _OPENING[token.text]:
                counts[opener] -= 1
                pending.pop()
            counts[opener] -= 1
            closers[pending.pop()] = index
    return closers


def _typescript_words(code: str) -> Iterator[_Word]:
    """The words of _TYPESCRIPT. Templates and patterns between slashes depend on what stands before them."""
    position = 0
    before: _Word = ("", "", 0)
    in_template: list[bool] = []  # of the open braces: whether code in a template stands in them
    while position < len(code):
        word = _next_word(code, position, before)
        yield word
        kind, text, _ = word
        position += len(text)
        before = word if kind not in ("space", "newline") else before
        if text == "{":
            in_template.append(False)
        if text == "`" or (text == "}" and in_template and in_template.pop()):
            position = _template_end(code, position)
            yield "template", "`", position
            if code.startswith("${", position):
                yield "mark", "${", position
                in_template.append(True)
            position += 2 if code.startswith("${", position) else 1


def _next_word(code: str, position: int, before: _Word) -> _Word:
    starts_pattern = code[position] == "/" and code[position + 1 : position + 2] not in ("/", "*")
    if starts_pattern and _pattern_may_follow(before):
        found = _PATTERN.match(code, position)
        return "pattern", found[0] if found is not None else "/", position
    found = _TYPESCRIPT.match(code, position)
    return (found.lastgroup or "", found[0], position) if found is not None else ("mark", code[position], position)


def _pattern_may_follow(before: _Word) -> bool:
    kind, text, _ = before
    return text in _BEFORE_PATTERN or (kind in ("", "mark") and text not in (")", "]", "}"))


def _template_end(code: str, position: int) -> int:
    """Where the text of a template ends: at the closing backtick, at `${`, or with the code."""
    found = _TEMPLATE.match(code, position)
    return found.end() if found is not None else position
