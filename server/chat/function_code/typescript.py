"""Parameters of TypeScript and JavaScript functions, as the schema of what the functions are called with.

A single destructured parameter is the arguments object itself; other parameters are its properties. Knows no requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .outline import Scope
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
    with_required,
)
from .tokens import Span
from .typescript_types import property_name, schema_of

_MODIFIERS = frozenset(("public", "private", "protected", "readonly", "override"))

# What a parameter without a type takes, by its default.
_BY_START: dict[str, Schema] = {
    "true": BOOLEAN,
    "false": BOOLEAN,
    "`": STRING,
    "[": ANY_ARRAY,
    "{": ANY_OBJECT,
}
_BY_KIND: dict[str, Schema] = {"string": STRING, "number": NUMBER}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameter:
    """`pattern?: annotation = default`, with `...` before it or not."""

    pattern: Span
    is_rest: bool
    is_optional: bool
    annotation: Span | None
    default: Span | None


def arguments(parameters: Span, scope: Scope) -> Schema:
    """The schema of a function's arguments as an object. Raises UnreadableCodeError."""
    known = [each for each in _parameters(parameters) if not each.is_rest and each.pattern.text(0) != "this"]
    if [each.pattern.text(0) for each in known] == ["{"]:
        return _destructured(known[0], scope)
    return record(_field(each, scope) for each in known)


def _parameters(span: Span) -> Iterator[_Parameter]:
    position = 0
    while position < len(span):
        position = _start(span, position)
        is_rest = span.text(position) == "..."
        start = position + is_rest
        end = span.after(start)
        is_optional = span.text(end) == "?"
        position = end + is_optional
        annotation = default = None
        if span.text(position) == ":":
            stop = span.find((",", "="), position, angles=True)
            annotation, position = span.part(position + 1, stop), stop
        if span.text(position) == "=":
            stop = span.find((",",), position)
            default, position = span.part(position + 1, stop), stop
        if span.text(position) not in (",", ""):
            raise UnreadableCodeError
        position += 1
        yield _Parameter(
            pattern=span.part(start, end),
            is_rest=is_rest,
            is_optional=is_optional,
            annotation=annotation,
            default=default,
        )


def _start(span: Span, position: int) -> int:
    """Where a parameter begins, after its decorators and modifiers."""
    while span.text(position) == "@":
        position += 2
        while span.text(position) == ".":
            position += 2
        if span.text(position) == "(":
            position = span.after(position)
    while span.text(position) in _MODIFIERS and span.token(position + 1).kind == "name":
        position += 1
    return position


def _field(parameter: _Parameter, scope: Scope) -> Field:
    name = parameter.pattern.token(0)
    if name.kind != "name":
        raise UnreadableCodeError  # a pattern among other parameters has no name to call it by
    return Field(
        name=name.text,
        schema=_schema(parameter.annotation, parameter.default, scope),
        required=not parameter.is_optional and parameter.default is None,
    )


def _schema(annotation: Span | None, default: Span | None, scope: Scope) -> Schema:
    for part in (annotation, default):
        if part is not None and not len(part):
            raise UnreadableCodeError
    if annotation is not None:
        return schema_of(annotation, scope)
    return _of_default(default) if default is not None else ANYTHING


def _of_default(default: Span) -> Schema:
    value = default.part(0, default.find(("as", "satisfies")))
    start = 1 if value.text(0) == "-" else 0
    first = value.token(start)
    if first.text != "`" and value.after(start) < len(value):
        return ANYTHING  # a computed one
    return _BY_START.get(first.text) or _BY_KIND.get(first.kind, ANYTHING)


def _destructured(parameter: _Parameter, scope: Scope) -> Schema:
    """`({ a, b = 1 }: { a: string; b?: number })`: the type has the properties, the pattern tells the defaults."""
    members = parameter.pattern.inside(0).split(",")
    written = tuple(_taken_out(each) for each in members if each.text(0) != "...")
    schema = _schema(parameter.annotation, None, scope)
    if "properties" not in schema:
        schema = record(written, rest=ANYTHING if len(written) < len(members) else None)
    if "properties" not in schema:
        return schema
    optional = frozenset(each.name for each in written if not each.required)
    may_be_left_out = parameter.is_optional or parameter.default is not None
    required = () if may_be_left_out else schema.get("required", ())
    return with_required(schema, (name for name in required if name not in optional))


def _taken_out(member: Span) -> Field:
    """A property that an object pattern takes out: `a`, `a = 1`, `a: b`, `a: b = 1`."""
    name, equals = property_name(member), member.find(("=",))
    if name is None or member.text(1) not in ("", "=", ":"):
        raise UnreadableCodeError
    default = member.part(equals + 1) if equals < len(member) else None
    return Field(name=name, schema=_of_default(default) if default is not None else ANYTHING, required=default is None)
