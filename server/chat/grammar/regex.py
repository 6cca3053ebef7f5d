"""Regular expressions as grammars: parsed by Python's own parser, never run.

The dialect is what Python and JavaScript share, read strictly: \\d \\w \\s are ASCII, and \\D \\W \\S leave out every
character that some dialect takes for a digit, word character or space, so what is generated matches in all of them.
`.` is any character but a newline; `$` is the very end. Lazy repeats mean the same as greedy ones, groups only group.
Refused, by position: backreferences, lookaround, \\b and \\B, flags, possessive and atomic parts, conditions, anchors
anywhere but at the edges. Knows no JSON Schema; of JSON only how strings are written.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Series
from enum import Enum
from functools import lru_cache
from typing import Any, TypeAlias

from .character_sets import (
    ANY_SPACE,
    ANY_WORD,
    DIGITS,
    SPACE,
    WORD,
    Ranges,
    any_digits,
    class_of,
    complement,
    difference,
    members,
    union,
)
from .expressions import (
    ANY_CHARACTER,
    EMPTY,
    ROOT,
    Characters,
    Choice,
    Expression,
    Grammar,
    GuideError,
    Literal,
    Repeat,
    Sequence,
    characters,
    choice,
    sequence,
)
from .limits import MAX_RULE_SYMBOLS, expanded_size
from .nullable import normalized
from .regex_syntax import MAX_COUNT, lone_set, misplaced, parse

_Node: TypeAlias = tuple[Any, Any]  # of Python's parse tree: an operation with its arguments


class _UnplacedError(GuideError):
    """About what has no position in the parse tree. `find`: looks for its place in a pattern."""

    def __init__(self, problem: str, find: Callable[[str], str]) -> None:
        super().__init__("", problem)
        self.find = find


class _Edge(Enum):
    """What is beside a part of the pattern."""

    OPEN = "any text"
    ANCHOR = "the end of the text"
    INSIDE = "another part"


def whole_expression(pattern: str) -> Expression:
    """The texts that match as a whole; anchors at the edges are allowed and change nothing. Raises GuideError."""
    return _expression(pattern, _Edge.ANCHOR)


def search_expression(pattern: str) -> Expression:
    """The texts in which the pattern is found somewhere, or where its anchors say. Raises GuideError."""
    return _expression(pattern, _Edge.OPEN)


def _expression(pattern: str, edge: _Edge) -> Expression:
    try:
        expression = _series(list(parse(pattern)), edge, edge)
    except _UnplacedError as error:
        raise GuideError(error.find(pattern), error.problem) from None
    size = expanded_size(expression)
    if size > MAX_RULE_SYMBOLS:
        raise GuideError("", f"the pattern stands for {size:,} characters written out; use smaller counts")
    return normalized(Grammar({ROOT: expression})).rules[ROOT]


_ANY_TEXT = Repeat(ANY_CHARACTER, 0, None)
_ONLY_AT_EDGES = "^ and $ are supported only at the very beginning and end of a pattern or alternative"
_STARTS = ("AT_BEGINNING", "AT_BEGINNING_STRING")
_ENDS = ("AT_END", "AT_END_STRING")


def _series(nodes: Series[_Node], left: _Edge, right: _Edge) -> Expression:
    """Nodes one after another, between these edges."""
    nodes = [node for node in nodes if not _is_empty(node)]
    while left is not _Edge.INSIDE and nodes and _is_anchor(nodes[0], _STARTS):
        nodes, left = nodes[1:], _Edge.ANCHOR
    while right is not _Edge.INSIDE and nodes and _is_anchor(nodes[-1], _ENDS):
        nodes, right = nodes[:-1], _Edge.ANCHOR
    if not nodes:
        return _ANY_TEXT if _Edge.OPEN in (left, right) else EMPTY
    if len(nodes) == 1:
        return _part(nodes[0], left, right)
    inner = (_part(node, _Edge.INSIDE, _Edge.INSIDE) for node in nodes[1:-1])
    return sequence(_part(nodes[0], left, _Edge.INSIDE), *inner, _part(nodes[-1], _Edge.INSIDE, right))


def _is_anchor(node: _Node, kinds: tuple[str, ...]) -> bool:
    return node[0].name == "AT" and node[1].name in kinds


def _is_empty(node: _Node) -> bool:
    """Whether the node is nothing at all, as what Python's parser leaves of `a$|a$` after it took out `a$`."""
    operation, argument = node
    return operation.name == "BRANCH" and not any(argument[1])


def _part(node: _Node, left: _Edge, right: _Edge) -> Expression:
    """One node. Groups and alternatives hand the edges on, since anchors may stand in them."""
    operation, argument = node
    if operation.name == "SUBPATTERN":
        return _series(list(argument[-1]), left, right)
    if operation.name == "BRANCH":
        return choice(*(_series(list(each), left, right) for each in argument[1]))
    before = _ANY_TEXT if left is _Edge.OPEN else EMPTY
    after = _ANY_TEXT if right is _Edge.OPEN else EMPTY
    return sequence(before, _simple(operation.name, argument), after)


def _simple(name: str, argument: Any) -> Expression:
    match name:
        case "LITERAL" if 0xD800 <= argument <= 0xDFFF:
            raise GuideError("", f"\\u{argument:04x} is half a character; write the whole one")
        case "LITERAL":
            return Literal(chr(argument))
        case "NOT_LITERAL":
            return class_of(complement(((argument, argument),)))
        case "ANY":
            return class_of(complement(((0x0A, 0x0A),)))
        case "IN":
            return _set(tuple(argument))
        case "MAX_REPEAT" | "MIN_REPEAT":
            return _repeat(*argument)
        case "AT":
            raise _UnplacedError(_ONLY_AT_EDGES, misplaced)
        case _:
            raise GuideError("", f"{name.lower().replace('_', ' ')} is not supported")


def _repeat(least: int, most: int, nodes: Series[_Node]) -> Expression:
    item = _series(list(nodes), _Edge.INSIDE, _Edge.INSIDE)
    if most == 0 or item == EMPTY:
        return EMPTY
    return item if least == most == 1 else Repeat(item, least, None if most > MAX_COUNT else most)


@lru_cache(maxsize=256)
def _set(items: tuple[_Node, ...]) -> Expression:
    negated = items[0][0].name == "NEGATE"
    ranges = union(_item(*item, broad=negated) for item in items[negated:])
    try:
        return class_of(complement(ranges) if negated else ranges)
    except GuideError as error:
        raise _UnplacedError(error.problem, lone_set) from None


def _item(operation: Any, argument: Any, *, broad: bool) -> Ranges:
    """What an item of a set stands for: strictly, or `broad`, in any dialect."""
    if operation.name == "LITERAL":
        return ((argument, argument),)
    if operation.name == "RANGE":
        return (argument,)
    return _category(argument.name.removeprefix("CATEGORY_"), broad=broad)


@lru_cache(maxsize=16)
def _category(name: str, *, broad: bool) -> Ranges:
    match name:
        case "DIGIT":
            return any_digits() if broad else DIGITS
        case "WORD":
            return ANY_WORD if broad else WORD
        case "SPACE":
            return ANY_SPACE if broad else SPACE
        case _:
            return complement(_category(name.removeprefix("NOT_"), broad=not broad))


_JSON_ESCAPES = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
_NOT_PLAIN_IN_JSON: Ranges = ((0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F))


def json_string_content(expression: Expression) -> Expression:
    """The same texts as they stand between the quotes of a JSON string. The expression has no references.

    `"`, `\\` and the five control characters that have a short escape are written with it. Other control characters
    can't be written: sets lose them, and GuideError is raised where nothing is left.
    """
    match expression:
        case Literal(text):
            return Literal("".join(map(_in_json, text)))
        case Characters():
            return _set_in_json(expression)
        case Sequence(parts):
            return sequence(*map(json_string_content, parts))
        case Choice(options):
            return choice(*map(json_string_content, options))
        case Repeat(item, least, most):
            return Repeat(json_string_content(item), least, most)
        case _:
            return expression


def _in_json(character: str) -> str:
    if character in _JSON_ESCAPES:
        return "\\" + _JSON_ESCAPES[character]
    if any(first <= ord(character) <= last for first, last in _NOT_PLAIN_IN_JSON):
        raise GuideError("", f"the control character U+{ord(character):04X} is not possible in a JSON string here")
    return character


@lru_cache(maxsize=256)
def _set_in_json(expression: Characters) -> Expression:
    ranges = members(expression)
    plain = difference(ranges, _NOT_PLAIN_IN_JSON)
    escaped = [letter for each, letter in _JSON_ESCAPES.items() if any(a <= ord(each) <= b for a, b in ranges)]
    if not escaped:
        return class_of(plain)
    escapes = sequence(Literal("\\"), characters("".join(escaped)) if len(escaped) > 1 else Literal(escaped[0]))
    return choice(class_of(plain), escapes) if plain else escapes
