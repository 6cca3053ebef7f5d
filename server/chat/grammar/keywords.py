"""The keywords of one schema object: which exist, which are refused and why, and their values read with a type check.

Knows nothing of other schemas: neither $ref nor what allOf makes of several.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from .expressions import GuideError
from .json_text import JsonValue, clipped, is_whole, step

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")

_NUMERIC = frozenset({"number", "integer"})
# Of OpenAPI and the like; they say how a number is kept, not which ones there are in JSON.
_NUMBER_FORMATS = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}) | {
    *("float", "double", "decimal")
}
_ANY_NAMES: tuple[JsonValue, ...] = ({}, {"type": "string"})
# Keywords that say something about one type only.
_OF_TYPE: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(
        ("properties", "required", "additionalProperties", "minProperties", "maxProperties", "unevaluatedProperties"),
        frozenset({"object"}),
    ),
    **dict.fromkeys(
        ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "unevaluatedItems"), frozenset({"array"})
    ),
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), frozenset({"string"})),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), _NUMERIC),
}
_OF_ALL_TYPES = frozenset({"type", "enum", "const", "$ref", "allOf", "anyOf", "oneOf"})
_ANNOTATIONS = frozenset(
    {
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$comment", "$defs", "definitions", "contentMediaType", "contentEncoding"),
        "discriminator",  # of OpenAPI: repeats what a property of the alternatives says
    }
)
_ADVICE = {
    "nullable": 'use a list of types such as ["string", "null"]',
    "additionalItems": "use prefixItems with items",
    "$id": "only the whole schema may have one",
    "$anchor": 'use a $ref such as "#/$defs/name"',
    "$dynamicRef": "use $ref",
    "$recursiveRef": "use $ref",
    "id": "only $id at the top is known",
    "if": "use anyOf",
    "then": "use anyOf",
    "else": "use anyOf",
    "dependentRequired": "use anyOf",
    "dependentSchemas": "use anyOf",
    "dependencies": "use anyOf",
    "patternProperties": "use properties or additionalProperties",
}


class Keywords:
    """A schema object with its place. Making one checks which keywords are there; reading one checks its value."""

    def __init__(self, schema: Mapping[str, JsonValue], place: str) -> None:
        """Raises GuideError for keywords that can't be kept."""
        self.place = place
        self._schema = schema
        for name in schema:
            self._check_known(name)
        self.types = self._types()
        self._schema = {name: value for name, value in schema.items() if not self._says_nothing(name)}
        for name in self._schema:
            self._check_applies(name)

    def __contains__(self, name: str) -> bool:
        return name in self._schema

    @property
    def constraints(self) -> frozenset[str]:
        """Names of the keywords that say something of values by themselves, not through other schemas in place."""
        return frozenset(name for name in self._schema if name in _OF_TYPE or name in {"type", "enum", "const"})

    @property
    def implied_types(self) -> frozenset[str]:
        """The types that the keywords are about."""
        return frozenset().union(*(_OF_TYPE.get(name, frozenset()) for name in self._schema))

    def error(self, name: str, problem: str) -> GuideError:
        """What to raise about a keyword."""
        return GuideError(step(self.place, name), f"{name} {problem}")

    def value(self, name: str) -> JsonValue:
        """Any JSON value; the keyword must be there."""
        return self._schema[name]

    def count(self, name: str, *, most: int | None = None) -> int | None:
        """A whole number, at least 0; None where the keyword isn't there."""
        value = self._schema.get(name)
        if name not in self._schema:
            return None
        if isinstance(value, Decimal) and is_whole(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.error(name, "must be a whole number, at least 0")
        if most is not None and value > most:
            raise self.error(name, f"is supported up to {most:,}; lower it or leave it out")
        return value

    def number(self, name: str) -> int | Decimal | None:
        """A number; None where the keyword isn't there."""
        if name not in self._schema:
            return None
        value = self._schema[name]
        if isinstance(value, bool):
            raise self.error(name, "must be a number; true and false are of an older draft")
        if not isinstance(value, int | Decimal):
            raise self.error(name, "must be a number")
        return value

    def text(self, name: str) -> str | None:
        """A string; None where the keyword isn't there."""
        value = self._schema.get(name)
        if name in self._schema and not isinstance(value, str):
            raise self.error(name, "must be a string")
        return value if isinstance(value, str) else None

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of different strings; none where the keyword isn't there."""
        values = self._schema.get(name, [])
        if not isinstance(values, list):
            advice = "; true and false are of an older draft" if isinstance(values, bool) else ""
            raise self.error(name, f"must be a list of strings{advice}")
        found = tuple(each for each in values if isinstance(each, str))
        if len(found) < len(values) or len(set(found)) < len(values):
            raise self.error(name, "must be a list of strings, each of them once")
        return found

    def values(self, name: str, *, most: int) -> list[JsonValue]:
        """A list with something in it."""
        value = self._schema[name]
        if not isinstance(value, list) or not value:
            raise self.error(name, "must be a list with at least one value")
        if len(value) > most:
            raise self.error(name, f"is supported with up to {most:,} values")
        return value

    def places(self, name: str) -> tuple[str, ...]:
        """The places of a list of schemas, at least one."""
        value = self._schema[name]
        if not isinstance(value, list) or not value:
            raise self.error(name, "must be a list with at least one schema")
        return tuple(step(self.place, name, index) for index in range(len(value)))

    def named_places(self, name: str) -> dict[str, str]:
        """The places of schemas by name; none where the keyword isn't there."""
        value = self._schema.get(name, {})
        if not isinstance(value, dict):
            raise self.error(name, "must be an object of schemas")
        return {each: step(self.place, name, each) for each in value}

    def order_of(self, names: frozenset[str]) -> list[str]:
        """Those of `names` that are there, as the schema orders them."""
        return [name for name in self._schema if name in names]

    def _types(self) -> frozenset[str] | None:
        if "type" not in self._schema:
            return None
        given = self._schema["type"]
        names = (given,) if isinstance(given, str) else self.texts("type") if isinstance(given, list) else ()
        if not names or not set(names) <= set(TYPES):
            raise self.error("type", f"must be one of {', '.join(TYPES)}, or a list of them")
        return frozenset(names)

    def _says_nothing(self, name: str) -> bool:
        """Whether the keyword allows everything with this value. For `format`, types must have been read."""
        value = self._schema.get(name)
        if name == "format":
            return isinstance(value, str) and self._is_number_format(value)
        if name == "propertyNames":
            return value is True or value in _ANY_NAMES
        return name == "nullable" and value is False

    def _is_number_format(self, name: str) -> bool:
        types = self.types or frozenset()
        return not types.isdisjoint(_NUMERIC) and (name in _NUMBER_FORMATS or "string" not in types)

    def _check_known(self, name: str) -> None:
        if name in _OF_TYPE or name in _OF_ALL_TYPES or name in _ANNOTATIONS or name.startswith("x-"):
            return
        if (name == "$id" and not self.place) or self._says_nothing(name):
            return
        shown = name if name.isidentifier() or name.startswith("$") else clipped(name)
        advice = _ADVICE.get(name, "leave it out")
        raise GuideError(step(self.place, name), f"{shown[:60]} is not supported; {advice}")

    def _check_applies(self, name: str) -> None:
        types = self.types
        if name not in _OF_TYPE or types is None or types & _OF_TYPE[name]:
            return
        raise self.error(name, f"does not apply to type {' or '.join(sorted(types))}; leave it out")
