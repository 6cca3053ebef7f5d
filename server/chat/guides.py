"""From the shape of an answer to the grammar that holds the model to it.

All shapes become one EBNF text, for every engine: so engines can't differ in what a schema means, `text or calls` can
be said at all, and what can't be promised is refused here, by its place. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from typing_extensions import assert_never

from .grammar.ebnf import parse_ebnf
from .grammar.expressions import (
    ROOT,
    Expression,
    Fragment,
    Grammar,
    GuideError,
    Literal,
    Reference,
    Repeat,
    choice,
    sequence,
    to_ebnf,
)
from .grammar.json_schema import any_object, schema_fragment
from .grammar.limits import Budget, check_grammar
from .grammar.nullable import normalized
from .grammar.regex import whole_expression
from .grammar.text import text_without_calls
from .model import (
    AnyJsonObject,
    AnyText,
    Ebnf,
    FunctionTool,
    JsonSchema,
    Regex,
    ReplyShape,
    TextShape,
    TextWithoutCalls,
)
from .tool_text import CALL_CLOSE, CALL_MARK, CALL_MIDDLE, CALL_OPEN, CALL_SEPARATOR

MAX_CALLS = 32

_CALL = "tool-call"


class Part(Enum):
    """What of a shape is meant, where no single function is."""

    TEXT = "text"
    FUNCTIONS = "functions"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeProblem:
    """What is wrong with a shape, and with which part of it: a number is that of a function."""

    part: int | Part
    error: GuideError


class ShapeError(Exception):
    """A shape can't be turned into a guide; `problems` holds everything that is wrong."""

    def __init__(self, problems: tuple[ShapeProblem, ...]) -> None:
        super().__init__("; ".join(str(problem.error) for problem in problems))
        self.problems = problems


@lru_cache(maxsize=64)
def guide_of(shape: ReplyShape) -> str | None:
    """The grammar's text; None where any text will do. The same shape gives the same text. Raises ShapeError."""
    if isinstance(shape.text, AnyText) and not shape.functions:
        return None
    problems: list[ShapeProblem] = []
    fragments = list(_fragments(shape, problems))
    if problems:
        raise ShapeError(tuple(problems))
    rules = {name: rule for fragment in fragments for name, rule in fragment.rules.items()}
    grammar = Grammar({ROOT: choice(*(fragment.start for fragment in fragments)), **rules})
    try:
        check_grammar(grammar)
    except GuideError as error:
        raise ShapeError((ShapeProblem(part=Part.FUNCTIONS if shape.functions else Part.TEXT, error=error),)) from error
    return to_ebnf(normalized(grammar))


def _fragments(shape: ReplyShape, problems: list[ShapeProblem]) -> Iterator[Fragment]:
    """The alternatives of an answer, as far as they can be had."""
    if shape.functions:
        yield _calls(shape, problems)
    if shape.text is not None:
        try:
            yield _text(shape.text)
        except GuideError as error:
            problems.append(ShapeProblem(part=Part.TEXT, error=error))


def _calls(shape: ReplyShape, problems: list[ShapeProblem]) -> Fragment:
    options: list[Expression] = []
    rules: dict[str, Expression] = {}
    budget = Budget()  # one for all of them, so that many schemas take no longer than one
    for index, function in enumerate(shape.functions):
        try:
            arguments = schema_fragment(function.parameters, prefix=f"f{index}-", object_only=True, budget=budget)
        except GuideError as error:
            if budget.symbols < 0:
                problems.append(ShapeProblem(part=Part.FUNCTIONS, error=error))
                break
            if not function.code:
                problems.append(ShapeProblem(part=index, error=error))
                continue
            arguments = any_object()  # nobody wrote that schema: it was read from code
        options.append(_named(function, arguments.start))
        rules |= arguments.rules
    if not options:
        return Fragment(start=Literal(""), rules={})
    rules[_CALL] = sequence(Literal(CALL_OPEN), choice(*options), Literal(CALL_CLOSE))
    call = Reference(_CALL)
    more = Repeat(sequence(Literal(CALL_SEPARATOR), call), 0, MAX_CALLS - 1)
    return Fragment(start=call if shape.single_call else sequence(call, more), rules=rules)


def _named(function: FunctionTool, arguments: Expression) -> Expression:
    return sequence(Literal(function.name + CALL_MIDDLE), arguments)


def _text(shape: TextShape) -> Fragment:
    match shape:
        case AnyText() | TextWithoutCalls():
            return text_without_calls(CALL_MARK)
        case AnyJsonObject():
            return any_object()
        case JsonSchema(schema):
            return schema_fragment(schema)
        case Regex(pattern):
            return Fragment(start=whole_expression(pattern), rules={})
        case Ebnf(text):
            rules = dict(parse_ebnf(text).rules)
            return Fragment(start=rules.pop(ROOT), rules=rules)
        case _:
            assert_never(shape)
