"""Grammars as EBNF, in the notation that llama.cpp's GBNF and XGrammar share, turned into the Lark text of llguidance.

Every character becomes a terminal of its own: llguidance's lexer is greedy, and with longer ones it would refuse texts
that an ambiguous grammar derives. With these its parser follows all readings at once.

Knows notation only: neither llguidance itself nor tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from .ebnf_characters import NotationError, regex_of_class, regexes_of_literal
from .ebnf_rules import Part, Rule, lark_of, left_recursion
from .errors import RequestError

ROOT = "root"
# Rules, alternatives, groups, repetitions and different characters. In bad grammars the time that llguidance takes for
# a token grows with this, up to seconds.
MOST_PARTS = 20_000
MOST_REPEATS = 1_000_000

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_TOKEN = re.compile(
    rf"""(?P<space>[ \t\r\n]+|\#[^\n]*)
    | (?P<rule>{_NAME}[ \t\r\n]*::=)
    | (?P<name>{_NAME})
    | (?P<literal>"(?:[^"\\\n]|\\.)*")
    | (?P<class>\[(?:[^\]\\\n]|\\.)*\])
    | (?P<count>\{{[ \t]*[0-9]+[ \t]*(?:,[ \t]*[0-9]*[ \t]*)?\}})
    | (?P<mark>[()|*+?])""",
    re.VERBOSE,
)


def lark_from_ebnf(text: str) -> str:
    """The same language as `text` derives from its rule `root`; a character is a Unicode code point.

    Raises:
        RequestError: names line, column and what is wrong there. As in GBNF, no rule may begin with itself.
    """
    return _Translation(text).lark()


@dataclass(slots=True)
class _Body:
    """What stands right of `::=` or inside a group, as far as it was read."""

    name: str
    offset: int
    options: list[list[Part]] = field(default_factory=lambda: [[]])
    whole: int = 0  # where in the last alternative the element begins that a repetition would repeat
    repeated: bool = False  # the last part has its repetition already


class _Translation:
    """One text on its way. Groups become rules: Lark text must not nest deeply, but may have many rules."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._offset = 0
        self._open: list[_Body] = []  # a rule, then the groups inside it
        self._rules: dict[str, Rule] = {}  # with their names in Lark, which allows fewer
        self._names = {ROOT: "start"}
        self._first_use: dict[str, int] = {}
        self._defined: dict[str, int] = {}
        self._characters: dict[str, str] = {}  # rules by the regular expression that each stands for
        self._parts = 0

    def lark(self) -> str:
        read: dict[str, Callable[[str], None]] = {
            "rule": self._rule,
            "name": self._name,
            "literal": self._literal,
            "class": self._class,
            "count": self._count,
            "mark": self._mark,
        }
        try:
            for kind, token in self._tokens():
                read[kind](token)
        except NotationError as error:
            self._refuse(str(error))
        self._end_rule()
        self._check_names()
        self._check_beginnings()
        rules = [lark_of(name, rule) for name, rule in self._rules.items()]
        characters = [f"{name}: /{regex}/" for regex, name in self._characters.items()]
        return "\n".join([*rules, *characters, ""])

    def _tokens(self) -> Iterator[tuple[str, str]]:
        end = 0
        while end < len(self._text):
            self._offset = end
            match = _TOKEN.match(self._text, end)
            if match is None:
                self._refuse(_unreadable(self._text[end]))
            if match.lastgroup != "space":
                yield str(match.lastgroup), match[0]
            end = match.end()
        self._offset = end

    def _rule(self, token: str) -> None:
        name = token.removesuffix("::=").rstrip()
        self._end_rule()
        if name in self._defined:
            self._refuse(f"there is a rule {name} already")
        self._defined[name] = self._offset
        self._open = [_Body(self._lark_name(name), self._offset)]
        self._count_part()

    def _end_rule(self) -> None:
        if len(self._open) > 1:
            self._refuse("this ( is not closed", self._open[-1].offset)
        if self._open:
            self._close_body()

    def _name(self, name: str) -> None:
        self._first_use.setdefault(name, self._offset)
        self._add(self._lark_name(name))

    def _literal(self, token: str) -> None:
        self._add(*map(self._character, regexes_of_literal(token)))

    def _class(self, token: str) -> None:
        self._add(self._character(regex_of_class(token)))

    def _mark(self, mark: str) -> None:
        if mark == "(":
            self._body()
            self._count_part()
            self._open.append(_Body(f"g{self._parts}", self._offset))
        elif mark == ")":
            if len(self._open) < 2:
                self._refuse(") without a ( before it")
            self._add(self._close_body())
        elif mark == "|":
            self._check_option()
            self._body().options.append([])
            self._count_part()
        else:
            self._repeat(mark)

    def _count(self, token: str) -> None:
        least, comma, most = (each.strip() for each in token[1:-1].partition(","))
        if max(len(least), len(most)) > 9 or max(int(least), int(most or 0)) > MOST_REPEATS:
            self._refuse(f"{token} is more than {MOST_REPEATS} times")
        if most and int(most) < int(least):
            self._refuse(f"{token} goes backwards")
        if comma and not most:
            self._repeat(f"{{{int(least)},}}", max(1, 2 * int(least).bit_length()))
        else:
            top = int(most or least)
            self._repeat(f"{{{int(least)},{top}}}" if top else "", max(1, 2 * top.bit_length()))

    def _repeat(self, repetition: str, parts: int = 1) -> None:
        """Repeat the last element; without a repetition not even once. `parts`: how many it counts for."""
        body = self._body()
        option = body.options[-1]
        if not option or body.repeated:
            self._refuse("here is nothing to repeat; put parentheses around what already is a repetition")
        self._count_part(parts)
        element, option[body.whole :] = option[body.whole :], []
        if len(element) > 1:
            name = f"g{self._parts}"
            self._rules[name] = [element]
            element = [Part(name)]
        self._add(element[0].name if repetition else "", repetition=repetition)
        body.repeated = True

    def _add(self, *names: str, repetition: str = "") -> None:
        """Add an element: rules one after another, or nothing."""
        body = self._body()
        body.whole = len(body.options[-1])
        body.options[-1] += [Part(name, repetition if name else "") for name in names or ("",)]
        body.repeated = False

    def _body(self) -> _Body:
        if not self._open:
            self._refuse("expected a rule: its name, then ::=")
        return self._open[-1]

    def _close_body(self) -> str:
        self._check_option()
        body = self._open.pop()
        self._rules[body.name] = body.options
        return body.name

    def _check_option(self) -> None:
        if not self._body().options[-1]:
            self._refuse('an alternative is missing here; write "" for nothing')

    def _check_names(self) -> None:
        if ROOT not in self._defined:
            self._refuse(f"the grammar has no rule {ROOT}")
        for name, offset in self._first_use.items():
            if name not in self._defined:
                self._refuse(f"there is no rule {name}", offset)

    def _check_beginnings(self) -> None:
        cycle = left_recursion(self._rules)
        for name, offset in self._defined.items():
            if self._names[name] in cycle:
                self._refuse(f"rule {name} can begin with itself; repeat with * or put what is repeated last", offset)

    def _count_part(self, count: int = 1) -> None:
        self._parts += count
        if self._parts > MOST_PARTS:
            self._refuse(f"the grammar has more than {MOST_PARTS} rules, alternatives and groups")

    def _lark_name(self, name: str) -> str:
        return self._names.setdefault(name, f"r{len(self._names)}")

    def _character(self, regex: str) -> str:
        # A rule: a named terminal would take one of llguidance's numbers each time that it is used.
        if regex not in self._characters:
            self._characters[regex] = f"c{len(self._characters)}"
            self._count_part()
        return self._characters[regex]

    def _refuse(self, problem: str, offset: int | None = None) -> NoReturn:
        at = self._offset if offset is None else offset
        line = self._text.count("\n", 0, at) + 1
        column = at - self._text.rfind("\n", 0, at)
        raise RequestError(f"guided_decoding_guide, line {line}, column {column}: {problem[:200]}")


def _unreadable(character: str) -> str:
    closed_by = {'"': '"', "[": "]", "{": "}"}.get(character)
    return f"this {character} has no {closed_by} after it" if closed_by else f"unexpected {character!a}"
