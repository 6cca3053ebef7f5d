"""Type annotations of Python as schemas: the built-in and `typing` ones, and classes and aliases of the same code."""

from __future__ import annotations

import re
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
    any_of,
    array,
    boolean_constant,
    fixed_array,
    mapping,
    merged,
    number_constant,
    record,
    text_constant,
    unescaped,
)
from .tokens import Span, python_tokens

_LONGEST_QUOTED = 1_000  # characters of an annotation in quotes

_ARRAYS = frozenset(
    ("list", "List", "set", "Set", "frozenset", "FrozenSet", "Sequence", "MutableSequence", "Iterable", "Collection")
)
_TUPLES = frozenset(("tuple", "Tuple"))
_MAPPINGS = frozenset(("dict", "Dict", "Mapping", "MutableMapping", "OrderedDict", "defaultdict", "DefaultDict"))
_WRAPPERS = frozenset(("Annotated", "Required", "NotRequired", "ReadOnly", "Final"))  # mean their first argument
_SIMPLE: dict[str, Schema] = {
    "str": STRING,
    "int": INTEGER,
    "float": NUMBER,
    "bool": BOOLEAN,
    "None": NULL,
    "NoneType": NULL,
    **dict.fromkeys(("date", "datetime", "time", "UUID"), STRING),
    **dict.fromkeys(_ARRAYS | _TUPLES, ANY_ARRAY),
    **dict.fromkeys(_MAPPINGS, ANY_OBJECT),
}
_ENUMS = frozenset(("Enum", "StrEnum", "IntEnum"))
_WORDS: dict[str, Schema] = {"True": boolean_constant(True), "False": boolean_constant(False), "None": NULL}
_RECORDS = frozenset(("TypedDict", "BaseModel", "NamedTuple", "Struct", "object"))  # bases that add no fields
_STRING = re.compile(r"([A-Za-z]*)('''|\"{3}|'|\")(.*)\2", re.DOTALL)


def lines_of(span: Span) -> list[Span]:
    """The logical lines: what is in brackets doesn't begin one."""
    lines, start = [], 0
    while start < len(span):
        end = span.after(start)
        while end < len(span) and span.token(end).column < 0:
            end = span.after(end)
        lines.append(span.part(start, end))
        start = end
    return lines


def schema_of(span: Span, scope: Scope) -> Schema:
    """The schema of an annotation; anything where that is not known. Raises UnreadableCodeError after too many."""
    inner = scope.inside(span)
    if inner is None:
        return ANYTHING
    while span.text(0) == "(" and span.closer(0) == len(span) - 1:
        span = span.inside(0)
    members = span.split("|")
    if len(members) > 1:
        return any_of(schema_of(each, inner) for each in members) if len(members) <= MOST_ALTERNATIVES else ANYTHING
    if span.token(0).kind == "string" and len(span) == 1:
        return _quoted(span, inner)
    bracket = span.find(("[",))
    name = _dotted(span.part(0, bracket))
    if bracket == len(span):
        return _named(name, inner)
    return _generic(name, span.inside(bracket), inner) if span.closer(bracket) == len(span) - 1 else ANYTHING


def _dotted(span: Span) -> str:
    """`a.b.c`; "" for anything else."""
    names, dots = range(0, len(span), 2), range(1, len(span), 2)
    is_dotted = all(span.token(each).kind == "name" for each in names) and all(span.text(each) == "." for each in dots)
    return "".join(span.text(each) for each in range(len(span))) if is_dotted and len(span) % 2 else ""


def _named(name: str, scope: Scope) -> Schema:
    found = scope.declaration(name)
    if found is None:
        return _SIMPLE.get(_last(name), ANYTHING)
    declared, inner = found
    return _class(declared, inner) if declared.text(0) == "class" else schema_of(declared, inner)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _generic(name: str, arguments: Span, scope: Scope) -> Schema:
    taken = arguments.split(",")
    if not taken or len(taken) > MOST_ALTERNATIVES or name in scope.types:
        return ANYTHING
    name = _last(name)
    if name == "Literal":
        return any_of(_constant(each) for each in taken)
    if name in _TUPLES:
        return _tuple(taken, scope)
    if name in ("Union", "Optional"):
        return any_of([*(schema_of(each, scope) for each in taken), *([NULL] if name == "Optional" else [])])
    if name in _MAPPINGS:
        return mapping(schema_of(taken[-1], scope))
    first = schema_of(taken[0], scope)
    return array(first) if name in _ARRAYS else first if name in _WRAPPERS else ANYTHING


def _tuple(taken: list[Span], scope: Scope) -> Schema:
    if len(taken) == 2 and taken[1].text(0) == "...":
        return array(schema_of(taken[0], scope))
    is_empty = taken[0].text(0) == "(" and not len(taken[0].inside(0))  # tuple[()]
    return ANY_ARRAY if is_empty else fixed_array(tuple(schema_of(each, scope) for each in taken))


def _quoted(span: Span, scope: Scope) -> Schema:
    text = _string(span.text(0))
    return schema_of(python_tokens(text), scope) if text is not None and len(text) <= _LONGEST_QUOTED else ANYTHING


def _string(literal: str) -> str | None:
    """What a string literal says; None for f-strings, bytes and escapes that are rarely seen."""
    found = _STRING.fullmatch(literal)
    if found is None:
        return None
    prefix, _, content = found.groups()
    return content if prefix in ("r", "R") else unescaped(content) if prefix in ("", "u") else None


def _constant(span: Span) -> Schema:
    """The schema of one value in `Literal` or in an enumeration."""
    notation = "".join(span.text(each) for each in range(min(len(span), 3)))
    kind = span.token(len(span) - 1).kind
    if kind == "number" and (len(span) == 1 or (len(span) == 2 and span.text(0) == "-")):
        return number_constant(notation, NUMBER)
    if len(span) != 1:
        return ANYTHING
    return text_constant(_string(notation)) if kind == "string" else _WORDS.get(notation, ANYTHING)


def _class(span: Span, scope: Scope) -> Schema:
    """An enumeration, or an object with the fields of a TypedDict, a dataclass or the like."""
    header, *body = lines_of(span)
    colon = header.find((":",))
    body = [header.part(colon + 1), *(line for line in body if line.token(0).column == body[0].token(0).column)]
    bases = header.part(0, colon).inside(header.find(("(",))).split(",")
    if any(_last(_dotted(each)) in _ENUMS for each in bases):
        return _enumeration(body)
    if any(line.text(0) == "def" and line.text(1) == "__init__" for line in body):
        return ANYTHING  # which values the constructor takes is not what the fields hold
    total = not any([each.text(0), each.text(2)] == ["total", "False"] for each in bases)
    fields = {each.name: each for each in _fields(body, scope, total=total)}
    others = [each for each in bases if each.text(1) != "=" and _last(_dotted(each)) not in _RECORDS]
    if not fields and not others:
        return ANYTHING
    return merged([*(schema_of(each, scope) for each in others), record(fields.values())])


def _enumeration(body: list[Span]) -> Schema:
    values = [line.part(2, line.find((";",))) for line in body if line.token(0).kind == "name" and line.text(1) == "="]
    return any_of(_constant(each) for each in values)


def _fields(body: list[Span], scope: Scope, *, total: bool) -> Iterator[Field]:
    """The annotated names of a class. `total`: those without a default must be given."""
    for statement in (each for line in body for each in line.split(";")):
        equals = statement.find(("=",))
        annotation, value = statement.part(2, equals), statement.part(equals + 1)
        mark = _last(_dotted(annotation.part(0, annotation.find(("[",)))))
        if statement.token(0).kind == "name" and statement.text(1) == ":" and len(annotation) and mark != "ClassVar":
            required = (total and (equals == len(statement) or _demands_value(value))) or mark == "Required"
            schema = schema_of(annotation, scope)
            yield Field(name=statement.text(0), schema=schema, required=required and mark != "NotRequired")


def _demands_value(value: Span) -> bool:
    """Whether what is assigned is `Field(...)` or the like without a default."""
    opener = value.find(("(",))
    if not _last(_dotted(value.part(0, opener))).lower().endswith("field"):
        return False
    return all(
        each.text(0) == "..." or (each.text(1) == "=" and not each.text(0).startswith("default"))
        for each in value.inside(opener).split(",")
    )
