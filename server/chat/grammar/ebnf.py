"""A caller's EBNF grammar, in the dialect that llama.cpp's GBNF and XGrammar share.

Rules are `name ::= ...` with "texts", [classes], `.`, (groups), `|`, `*`, `+`, `?`, {m}, {m,}, {m,n} and `# comments`;
a rule goes on until the next one begins. The grammar begins with `root`. Knows no engine: rules get names that all
engines read.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ...errors import clipped
from .ebnf_tokens import Token, class_from, literal_from, place, tokens
from .expressions import (
    ANY_CHARACTER,
    EMPTY,
    ROOT,
    Choice,
    Expression,
    Grammar,
    GuideError,
    Reference,
    Repeat,
    Sequence,
    choice,
    sequence,
)
from .limits import MAX_TEXT_BYTES, check_grammar

MAX_WORDS = 100_000
MAX_COUNT = 10_000
MAX_NESTING = 50
MAX_PROBLEM_CHARACTERS = 300  # names and counts of a caller's may be long


def parse_ebnf(text: str) -> Grammar:
    """The grammar, checked as by `check_grammar`. Raises GuideError, by line and column."""
    if len(text) > MAX_TEXT_BYTES:
        raise GuideError("", f"the grammar has {len(text):,} characters; {MAX_TEXT_BYTES:,} are possible")
    reader = _Reader(text)
    reader.read()
    try:
        check_grammar(Grammar(reader.rules))
    except GuideError as error:
        name = error.place.removeprefix("rule ")
        if name not in reader.places:
            raise
        problem = clipped(f"{name}: {error.problem}", MAX_PROBLEM_CHARACTERS)
        raise GuideError(place(text, reader.places[name]), problem) from error
    return Grammar({_our_name(name): _renamed(rule) for name, rule in reader.rules.items()})


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._taken = 0
        self._next = next(self._tokens)
        self._after_next = next(self._tokens, self._next)
        self.rules: dict[str, Expression] = {}
        self.places: dict[str, int] = {}
        self._references: dict[str, Token] = {}

    def read(self) -> None:
        """All rules, and that those they refer to are there."""
        while self._kind() != "end":
            self._rule()
        for name, token in self._references.items():
            if name not in self.rules:
                raise self._error(f"there is no rule {name}", token)
        if ROOT not in self.rules:
            raise GuideError("", f"there is no rule {ROOT}, with which a grammar begins")

    def _rule(self) -> None:
        if not self._at_rule():
            raise self._error("a rule should begin here: name ::= ...")
        name = self._take()
        if name.text in self.rules:
            raise self._error(f"there is another rule {name.text}", name)
        self._take()
        self.places[name.text] = name.offset
        self.rules[name.text] = self._choice(0)

    def _choice(self, nesting: int) -> Expression:
        options = [self._sequence(nesting)]
        while self._kind() == "|":
            self._take()
            options.append(self._sequence(nesting))
        return choice(*options)

    def _sequence(self, nesting: int) -> Expression:
        parts = []
        while self._kind() not in ("|", ")", "end") and not self._at_rule():
            parts.append(self._repeated(nesting))
        if not parts:
            raise self._error('something should stand here; nothing is written ""')
        return sequence(*parts)

    def _repeated(self, nesting: int) -> Expression:
        item = self._item(nesting)
        counts = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if self._kind() == "count":
            least, most = self._count(self._take())
        elif self._kind() in counts:
            least, most = counts[self._take().kind]
        else:
            return item
        if self._kind() in (*counts, "count"):
            raise self._error("it is repeated already; put it into parentheses to repeat it again")
        return EMPTY if most == 0 else Repeat(item, least, most)

    def _item(self, nesting: int) -> Expression:
        token = self._take()
        match token.kind:
            case "literal":
                return self._of(token, literal_from)
            case "class":
                return self._of(token, class_from)
            case ".":
                return ANY_CHARACTER
            case "name":
                self._references.setdefault(token.text, token)
                return Reference(token.text)
            case "(":
                return self._group(token, nesting + 1)
            case _:
                raise self._error(f"{token.text} has nothing before it", token)

    def _group(self, opening: Token, nesting: int) -> Expression:
        if nesting > MAX_NESTING:
            raise self._error(f"groups are nested more than {MAX_NESTING} deep", opening)
        inside = EMPTY if self._kind() == ")" else self._choice(nesting)
        if self._kind() != ")":
            raise self._error("this group is not closed", opening)
        self._take()
        return inside

    def _count(self, token: Token) -> tuple[int, int | None]:
        match = _COUNT.fullmatch(token.text)
        if match is None:
            raise self._error(f"{token.text} is no count; there are {{m}}, {{m,}} and {{m,n}}", token)
        least, comma, most = match.groups()
        counts = [int(each) if len(each) < 10 else MAX_COUNT + 1 for each in (least, most) if each]
        if max(counts) > MAX_COUNT:
            raise self._error(f"repeats of more than {MAX_COUNT:,} are not supported", token)
        if counts != sorted(counts):
            raise self._error(f"{token.text} ends below its beginning", token)
        return counts[0], None if comma and not most else counts[-1]

    def _at_rule(self) -> bool:
        return self._kind() == "name" and self._after_next.kind == "assign"

    def _kind(self) -> str:
        return self._next.kind

    def _take(self) -> Token:
        taken, self._taken = self._next, self._taken + 1
        if self._taken > MAX_WORDS:
            raise self._error(f"the grammar has more than {MAX_WORDS:,} words up to here")
        self._next, self._after_next = self._after_next, next(self._tokens, self._after_next)
        return taken

    def _of(self, token: Token, read: Callable[[str], Expression]) -> Expression:
        try:
            return read(token.text)
        except GuideError as error:
            raise self._error(error.problem, token) from error

    def _error(self, problem: str, token: Token | None = None) -> GuideError:
        return GuideError(place(self._text, (token or self._next).offset), clipped(problem, MAX_PROBLEM_CHARACTERS))


_COUNT = re.compile(r"\{\s*([0-9]+)\s*(,?)\s*([0-9]*)\s*\}")
_OUR_NAME = re.compile(r"(?!x-)[A-Za-z][A-Za-z0-9-]*")
_ENGINE_WORDS = ("true", "false", "Token", "ExcludeToken", "Regex", "TagDispatch", "TokenTagDispatch")  # XGrammar's


def _our_name(name: str) -> str:
    """A name that all engines read, different for different names."""
    if _OUR_NAME.fullmatch(name) and name not in _ENGINE_WORDS:
        return name
    return "x-" + name.replace("-", "-d").replace("_", "-u")


def _renamed(expression: Expression) -> Expression:
    match expression:
        case Reference(name):
            return Reference(_our_name(name))
        case Sequence(parts):
            return Sequence(tuple(map(_renamed, parts)))
        case Choice(options):
            return Choice(tuple(map(_renamed, options)))
        case Repeat(item, least, most):
            return Repeat(_renamed(item), least, most)
        case _:
            return expression
