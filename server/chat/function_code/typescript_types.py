"""Types of TypeScript as schemas: the built-in ones, and interfaces, aliases and enumerations of the same code."""

from __future__ import annotations

from collections.abc import Iterator

from .outline import Scope
from .schemas import (
    ANY_ARRAY,
    ANY_OBJECT,
    ANYTHING,
    BOOLEAN,
    INTEGER,
    MOST_ALTERNATIVES,
    NULL,
    NUMBER,
    STRING,
    Field,
    Schema,
    UnreadableCodeError,
    any_of,
    array,
    boolean_constant,
    fields_of,
    fixed_array,
    mapping,
    merged,
    number_constant,
    record,
    text_constant,
    unescaped,
    with_required,
)
from .tokens import Span

_ARRAYS = frozenset(("Array", "ReadonlyArray"))
_WORDS: dict[str, Schema] = {
    "string": STRING,
    "number": NUMBER,
    "bigint": INTEGER,
    "boolean": BOOLEAN,
    "object": ANY_OBJECT,
    "null": NULL,
    "undefined": NULL,
    "true": boolean_constant(True),
    "false": boolean_constant(False),
    "Date": STRING,
    **dict.fromkeys(_ARRAYS, ANY_ARRAY),
}
# A type goes on in a line that begins with one of these, and after a line that ends with one of those.
_CONTINUING = frozenset(("|", "&", ":", "=>", ",", "?", "=", "<", "extends"))
_UNFINISHED = _CONTINUING | {"keyof", "readonly", "typeof"}


def schema_of(span: Span, scope: Scope) -> Schema:
    """The schema of a type; anything where that is not known. Raises UnreadableCodeError after too many types."""
    inner = scope.inside(span)
    if inner is None:
        return ANYTHING
    span = _stripped(span)
    if span.find(("=>", "extends", "is"), angles=True) < len(span):
        return ANYTHING  # functions, conditional types, assertions
    for mark, combined in (("|", any_of), ("&", merged)):
        members = span.split(mark, angles=True)
        if len(members) > MOST_ALTERNATIVES:
            return ANYTHING
        if len(members) > 1:
            return combined(schema_of(each, inner) for each in members)
    return _single(span, inner)


def property_name(span: Span) -> str | None:
    """A key as it is or quoted; None for a computed one."""
    token = span.token(0)
    if token.kind == "string":
        return _string(token.text)
    return token.text if token.kind in ("name", "number") else None


def end_of_type(span: Span, start: int) -> int:
    """Where the type that begins at a position ends: before a semicolon, or a line that doesn't continue it."""
    position = start
    while position < len(span) and span.text(position) not in (";", ")", "}", "]"):
        starts_line = position > start and span.token(position).column >= 0
        if starts_line and span.text(position) not in _CONTINUING and span.text(position - 1) not in _UNFINISHED:
            break
        position = span.after(position)
    return min(position, len(span))


def _stripped(span: Span) -> Span:
    """Without what does not matter: brackets around all, `readonly`, a union's leading mark."""
    while True:
        if span.text(0) == "(" and span.closer(0) == len(span) - 1:
            span = span.inside(0)
        elif span.text(0) in ("readonly", "|", "&") and len(span) > 1:
            span = span.part(1)
        else:
            return span


def _string(literal: str) -> str | None:
    return unescaped(literal[1:-1]) if len(literal) > 1 and literal[-1] == literal[0] else None


def _single(span: Span, scope: Scope) -> Schema:
    """A type that is neither a union nor an intersection."""
    last = len(span) - 1
    first = span.token(0)
    if last > 0 and span.text(last - 1) == "[" and span.text(last) == "]":
        return array(schema_of(span.part(0, last - 1), scope))
    if first.text == "[" and span.closer(0) == last:
        return _tuple(span.inside(0), scope)
    if first.text == "{" and span.closer(0) == last:
        return _object(span.inside(0), scope)
    if first.text == "`" and span.text(last) == "`":
        return STRING
    if first.kind == "name":
        return _named(first.text, scope) if last == 0 else _generic(span, scope)
    return constant(span)


def constant(span: Span) -> Schema:
    """The schema of a literal; anything where it is not a simple one."""
    kind = span.token(len(span) - 1).kind
    if len(span) == 1 and kind == "string":
        return text_constant(_string(span.text(0)))
    if kind == "number" and (len(span) == 1 or (len(span) == 2 and span.text(0) == "-")):
        return number_constant(span.text(0) + span.text(1), NUMBER)
    return ANYTHING


def _named(name: str, scope: Scope) -> Schema:
    found = scope.declaration(name)
    if found is None:
        return _WORDS.get(name, ANYTHING)
    declared, inner = found
    match declared.text(0):
        case "enum":
            return _enumeration(declared)
        case "interface":
            return _interface(declared, inner)
        case _:
            return schema_of(declared.part(declared.find(("=",), angles=True) + 1), inner)


def _generic(span: Span, scope: Scope) -> Schema:
    """`Name<arguments>`."""
    name, last = span.text(0), len(span) - 1
    if span.text(1) != "<" or span.text(last) != ">" or name in scope.types:
        return ANYTHING
    taken = span.part(2, last).split(",", angles=True)
    if name == "Record" and len(taken) == 2:
        return mapping(schema_of(taken[1], scope))
    if len(taken) != 1:
        return ANYTHING
    if name in _ARRAYS:
        return array(schema_of(taken[0], scope))
    return _with_all(name, schema_of(taken[0], scope)) if name in ("Readonly", "Partial", "Required") else ANYTHING


def _with_all(name: str, schema: Schema) -> Schema:
    fields = fields_of(schema)
    if fields is None or name == "Readonly":
        return schema if name == "Readonly" else ANYTHING
    return with_required(schema, [each.name for each in fields] if name == "Required" else ())


def _tuple(inside: Span, scope: Scope) -> Schema:
    """`[A, B]` or `[a: A, b: B]`; with optional items, or with more to come, any array."""
    items = inside.split(",", angles=True)
    if len(items) > MOST_ALTERNATIVES or any(each.find(("?", "..."), angles=True) < len(each) for each in items):
        return ANY_ARRAY
    types = [each.part(2) if each.text(1) == ":" else each for each in items]
    return fixed_array(tuple(schema_of(each, scope) for each in types))


def _enumeration(declared: Span) -> Schema:
    """The values of `enum E { A = "a" }`; anything where some are counted or computed."""
    members = declared.inside(declared.find(("{",))).split(",")
    return any_of(constant(each.part(2)) if each.text(1) == "=" else ANYTHING for each in members)


def _interface(declared: Span, scope: Scope) -> Schema:
    opener = declared.find(("{",))
    extends = declared.find(("extends",), angles=True)
    own = _object(declared.inside(opener), scope)
    if extends > opener:
        return own
    bases = declared.part(extends + 1, opener).split(",", angles=True)
    return merged([*(schema_of(each, scope) for each in bases), record(()) if own == ANY_OBJECT else own])


def _object(inside: Span, scope: Scope) -> Schema:
    """`a: string; b?: number; [key: string]: T`. Methods are no data, they are left out."""
    rest: Schema | None = None
    fields: dict[str, Field] = {}
    for member in _members(inside):
        colon = member.find((":",))
        if member.text(0) == "[":
            rest = schema_of(member.part(colon + 1), scope)
        elif member.text(1 if member.text(1) != "?" else 2) not in ("(", "<"):
            name = property_name(member)
            if name is None:
                raise UnreadableCodeError
            schema = schema_of(member.part(colon + 1), scope)
            fields[name] = Field(name=name, schema=schema, required=member.text(1) != "?")
    return record(fields.values(), rest=rest) if fields or rest is not None else ANY_OBJECT


def _members(inside: Span) -> Iterator[Span]:
    """The members of an object type, which end with `;`, `,` or their line, without `readonly`."""
    position = 0
    while position < len(inside):
        member = inside.part(position, end_of_type(inside, position))
        member = member.part(0, member.find((",",), angles=True))
        end = position + len(member)
        if member.text(0) == "readonly" and member.text(1) not in ("?", ":"):
            member = member.part(1)
        if len(member):
            yield member
        position = end + 1 if inside.text(end) in (",", ";") else max(end, position + 1)
