"""Schemas of arguments, as far as types in source code tell them: the shapes they have.

Only plain keywords, no references, nothing that no value satisfies. Knows no programming language.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

ANYTHING: Schema = {}
ANY_OBJECT: Schema = {"type": "object"}
ANY_ARRAY: Schema = {"type": "array"}
STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
NULL: Schema = {"type": "null"}

MOST_FIELDS = 200
MOST_ALTERNATIVES = 100  # of a union, and items of a tuple; beyond, anything goes

_INTEGER = re.compile(r"-?[0-9]{1,15}")
_DECIMAL = re.compile(r"-?[0-9]{1,11}\.[0-9]{1,4}")  # few enough digits to be written again without an exponent

# Escapes that Python and JavaScript share, and those that only one of them has.
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|(.))?", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\\": "\\", "'": "'", '"': '"'}


class UnreadableCodeError(Exception):
    """The code does not say what its arguments are, or says too much to be a schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A parameter of a function or a property of an object."""

    name: str
    schema: Schema
    required: bool


def record(fields: Iterable[Field], *, rest: Schema | None = None) -> Schema:
    """An object with these fields. `rest` is what any further ones hold; None: there are no further ones.

    Raises UnreadableCodeError for two fields of one name, and for too many.
    """
    known = tuple(fields)
    if len(known) > MOST_FIELDS or len({each.name for each in known}) < len(known):
        raise UnreadableCodeError
    if not known and rest is not None:
        return mapping(rest)
    schema: dict[str, Any] = {"type": "object", "properties": {each.name: each.schema for each in known}}
    if required := [each.name for each in known if each.required]:
        schema["required"] = required
    schema["additionalProperties"] = False if rest is None else rest or True
    return schema


def fields_of(schema: Schema) -> tuple[Field, ...] | None:
    """The fields of a schema that `record` made without a rest; None for any other."""
    if schema.get("additionalProperties") is not False:
        return None
    required = frozenset(schema.get("required", ()))
    properties: Mapping[str, Schema] = schema["properties"]
    return tuple(Field(name=name, schema=each, required=name in required) for name, each in properties.items())


def merged(schemas: Iterable[Schema]) -> Schema:
    """The object with the fields of all; a later one replaces an earlier of its name. Not all records: anything."""
    together: dict[str, Field] = {}
    for schema in schemas:
        fields = fields_of(schema)
        if fields is None:
            return ANYTHING
        together.update((each.name, each) for each in fields)
    return record(together.values())


def with_required(schema: Schema, names: Iterable[str]) -> Schema:
    """The same object with these of its fields required and no others."""
    kept = frozenset(names)
    changed = {key: value for key, value in schema.items() if key not in ("required", "additionalProperties")}
    if required := [name for name in schema["properties"] if name in kept]:
        changed["required"] = required
    return {**changed, "additionalProperties": schema["additionalProperties"]}


def array(items: Schema) -> Schema:
    """An array of any length."""
    return {**ANY_ARRAY, "items": items} if items else ANY_ARRAY


def fixed_array(items: tuple[Schema, ...]) -> Schema:
    """An array of exactly these items."""
    if not items:
        return ANY_ARRAY
    return {**ANY_ARRAY, "prefixItems": list(items), "minItems": len(items), "maxItems": len(items)}


def mapping(values: Schema) -> Schema:
    """An object with keys that are not known before."""
    return {**ANY_OBJECT, "additionalProperties": values} if values else ANY_OBJECT


def any_of(options: Iterable[Schema]) -> Schema:
    """One of the options, each named once, their constants in one enumeration. No options: anything."""
    flat = [each for option in options for each in option.get("anyOf", (option,))]
    constants = _unique(value for each in flat for value in each.get("enum", ()))
    enumeration: Schema = {"enum": constants}
    unique: list[Schema] = _unique(enumeration if "enum" in each else each for each in flat)
    if not unique or ANYTHING in unique:
        return ANYTHING
    return unique[0] if len(unique) == 1 else {"anyOf": unique}


def text_constant(text: str | None) -> Schema:
    """This text; None is a text that could not be read."""
    return STRING if text is None else {"enum": [text]}


def number_constant(notation: str, otherwise: Schema) -> Schema:
    """The number of a plain decimal notation; `otherwise` for any other notation."""
    if _INTEGER.fullmatch(notation):
        return {"enum": [int(notation)]}
    if _DECIMAL.fullmatch(notation):
        return {"enum": [float(notation)]}
    return otherwise


def unescaped(text: str) -> str | None:
    """The content of a string literal; None if it has escapes that are not simple ones, or half a surrogate pair."""
    pieces = []
    end = 0
    for found in _ESCAPE.finditer(text):
        digits = found[1] or found[2]
        piece = chr(int(digits, 16)) if digits else _ESCAPED.get(found[3] or "")
        if piece is None or "\ud800" <= piece <= "\udfff":
            return None
        pieces += [text[end : found.start()], piece]
        end = found.end()
    return "".join([*pieces, text[end:]])


def boolean_constant(value: bool) -> Schema:
    """True or false."""
    return {"enum": [value]}


def _unique(values: Iterable[Any]) -> list[Any]:
    # By their text: to Python, 1 and True are the same.
    return list({json.dumps(each): each for each in values}.values())
