"""Functions in Python code: where they are, and the schema of what they are called with. Knows no requests."""

from __future__ import annotations

from collections.abc import Iterator
from keyword import iskeyword

from .outline import Function, Outline, Scope
from .python_types import lines_of, schema_of
from .schemas import (
    ANY_ARRAY,
    ANY_OBJECT,
    ANYTHING,
    BOOLEAN,
    NUMBER,
    STRING,
    Field,
    Schema,
    UnreadableCodeError,
    record,
)
from .tokens import Span, python_tokens

# What a parameter without an annotation takes, by its default. A whole number may stand for any number.
_BY_WORD: dict[str, Schema] = {"True": BOOLEAN, "False": BOOLEAN}
_BY_KIND: dict[str, Schema] = {"string": STRING, "number": NUMBER}
_BY_BRACKET: dict[str, Schema] = {"[": ANY_ARRAY, "{": ANY_OBJECT}


def outline(code: str) -> Outline:
    """The functions and types that the code declares, also in classes, but not within functions."""
    whole = python_tokens(code)
    functions: list[Function] = []
    types: dict[str, Span] = {}
    blocks: list[Span] = []  # first lines of the functions and classes around
    for line in (*lines_of(whole), whole.part(len(whole))):  # the last one ends all blocks
        while blocks and blocks[-1].token(0).column >= line.token(0).column:
            block = blocks.pop()
            if block.text(0) == "class":
                types[block.text(1)] = whole.part(block.start, line.start)
        if any(_keyword(block) == "def" for block in blocks):
            continue
        functions += _functions(line, top_level=not blocks)
        types.update(_aliases(line))
        if _keyword(line) in ("def", "class"):
            blocks.append(line)
    return Outline(functions=tuple(functions), types=types)


def arguments(parameters: Span, scope: Scope) -> Schema:
    """The schema of a function's arguments as an object. Raises UnreadableCodeError."""
    entries = list(_entries(parameters))
    if entries and entries[0].text(0) in ("self", "cls"):
        entries = entries[1:]
    takes_more = any(entry.text(0) == "**" for entry in entries)
    fields = [_field(entry, scope) for entry in entries if entry.text(0) not in ("*", "/", "**")]
    return record(fields, rest=ANYTHING if takes_more else None)


def _keyword(line: Span) -> str:
    return line.text(1 if line.text(0) == "async" else 0)


def _functions(line: Span, *, top_level: bool) -> Iterator[Function]:
    """The function that a line defines, or the lambda that it names or consists of."""
    if _keyword(line) == "def":
        header = line.part(line.find(("def",)) + 1)
        opener = header.find(("(",))
        complete = header.text(header.after(opener)) in (":", "->")
        parameters = header.inside(opener) if complete and header.closer(opener) is not None else None
        yield Function(name=header.text(0), parameters=parameters, top_level=top_level)
        return
    equals = line.find(("=",))
    value = line.part(equals + 1) if equals < len(line) else line
    if value.text(0) == "lambda":
        name = line.text(0) if equals < len(line) else ""
        parameters = value.part(1, _lambda_colon(value, 0))
        yield Function(name=name, parameters=parameters, top_level=top_level)


def _aliases(line: Span) -> Iterator[tuple[str, Span]]:
    """`Name = ...`, `Name: TypeAlias = ...` and `type Name = ...`."""
    target = line.part(1) if line.text(0) == "type" and line.token(1).kind == "name" else line
    equals = target.find(("=",))
    if target.token(0).kind == "name" and target.text(1) in ("=", ":", "[") and equals < len(target):
        yield target.text(0), target.part(equals + 1, target.find((";",)))


def _lambda_colon(span: Span, position: int) -> int:
    """The colon after the parameters of the lambda at a position. Lambdas in defaults have their own."""
    depth = 1
    while depth and position < len(span):
        position = span.find((":", "lambda"), position + 1)
        depth += 1 if span.text(position) == "lambda" else -1
    return position


def _entries(parameters: Span) -> Iterator[Span]:
    """The parameters one by one, annotation and default included."""
    position = 0
    while position < len(parameters):
        end = parameters.find((",", "lambda"), position)
        while parameters.text(end) == "lambda":
            end = parameters.find((",", "lambda"), _lambda_colon(parameters, end) + 1)
        yield parameters.part(position, end)
        position = end + 1


def _field(entry: Span, scope: Scope) -> Field:
    name = entry.token(0)
    equals = entry.find(("=",))
    annotation = entry.part(2, equals) if entry.text(1) == ":" else None
    default = entry.part(equals + 1) if equals < len(entry) else None
    if name.kind != "name" or iskeyword(name.text) or entry.text(1) not in (":", "=", ""):
        raise UnreadableCodeError
    if (annotation is not None and not len(annotation)) or (default is not None and not len(default)):
        raise UnreadableCodeError
    if annotation is not None:
        schema = schema_of(annotation, scope)
    else:
        schema = _of_default(default) if default is not None else ANYTHING
    return Field(name=name.text, schema=schema, required=default is None)


def _of_default(default: Span) -> Schema:
    start = 1 if default.text(0) == "-" else 0
    if default.after(start) < len(default):
        return ANYTHING  # a computed one
    first = default.token(start)
    return _BY_WORD.get(first.text) or _BY_BRACKET.get(first.text) or _BY_KIND.get(first.kind, ANYTHING)
