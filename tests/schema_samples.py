"""Random JSON Schemas for tests: supported ones, and wild ones that may be refused. The same seed, the same schema."""

from __future__ import annotations

import random
from typing import Any, TypeAlias

Schema: TypeAlias = "dict[str, Any]"

NAMES = (
    "a",
    "name",
    "name2",
    "名前",
    "naïve key",
    'quo"te',
    "emoji 😀",
    "",
    "back\\slash",
    "line\nbreak",
    "x/y~z",
    "b",
)
WORDS = ("red", "green", "", "grün", '"quoted"', "tab\t", "赤", "🟥", "null")
PATTERNS = ("^[a-z]{2,5}$", "^(yes|no)$", "^[A-Z][0-9]{3}$", '^a"b\\\\?$', "^[^x]{1,4}$", "^\\+?[0-9]{3,8}$")
FORMATS = ("date", "date-time", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")


def random_schema(seed: int, *, max_depth: int = 3, max_length: int = 40, max_items: int = 4) -> Schema:
    """A schema of an object that can be satisfied. Unbounded strings are left out, so that small models come to an end.

    `max_depth`: objects and arrays inside each other, recursion aside. `max_length`: characters of strings without
    pattern or format. `max_items`: items of arrays, and properties of objects.
    """
    return _Schemas(random.Random(seed), max_length, max_items).root(max_depth)


class _Schemas:
    def __init__(self, draw: random.Random, max_length: int, max_items: int) -> None:
        self._draw = draw
        self._max_length = max_length
        self._max_items = max_items
        self._definitions: Schema = {}

    def root(self, depth: int) -> Schema:
        schema = self._object(depth)
        return {**schema, "$defs": self._definitions} if self._definitions else schema

    def _any(self, depth: int) -> Schema:
        leaves = [self._string, self._integer, self._number, self._enum, self._const, self._boolean, self._nullable]
        nested = [self._object, self._array, self._either, self._one_of, self._tree, self._all_of, self._tuple]
        schema = self._draw.choice(leaves)() if depth <= 0 else self._draw.choice([*nested, *nested, *leaves])(depth)
        if self._chance(0.2):
            schema["description"] = self._draw.choice(WORDS)
        return schema

    def _object(self, depth: int) -> Schema:
        names = self._draw.sample(NAMES, self._draw.randint(0, self._max_items))
        schema: Schema = {
            "type": "object",
            "properties": {name: self._any(depth - 1) for name in names},
            "required": [name for name in names if self._chance(0.6)],
        }
        if self._chance(0.2):
            schema["additionalProperties"] = self._any(depth - 1)
        elif not names or self._chance(0.5):
            schema["additionalProperties"] = False
        return schema

    def _array(self, depth: int) -> Schema:
        least = self._draw.randint(0, 2)
        most = self._draw.randint(least, max(least, self._max_items))
        return {"type": "array", "items": self._any(depth - 1), "minItems": least, "maxItems": most}

    def _tuple(self, depth: int) -> Schema:
        prefix = [self._any(depth - 1) for _ in range(self._draw.randint(1, 3))]
        least = self._draw.randint(0, len(prefix))
        return {"type": "array", "prefixItems": prefix, "items": False, "minItems": least}

    def _either(self, depth: int) -> Schema:
        return {"anyOf": [self._any(depth - 1) for _ in range(self._draw.randint(1, 3))]}

    def _one_of(self, depth: int) -> Schema:
        options = []
        for kind in self._draw.sample(WORDS, 2):
            option = self._object(depth - 1)
            option["properties"] = {"kind": {"const": kind}, **option["properties"]}
            options.append({**option, "required": ["kind", *option["required"]]})
        return {"oneOf": [*options, self._string()]}

    def _all_of(self, depth: int) -> Schema:
        one, other = self._object(depth - 1), self._object(depth - 1)
        names = list(one["properties"])
        other["properties"] = {f"{name}+": each for name, each in other["properties"].items()}
        other["required"] = [f"{name}+" for name in other["required"]] + names[:1]
        for each in (one, other):
            each.pop("additionalProperties", None)
        return {"allOf": [one, other]}

    def _tree(self, depth: int) -> Schema:
        name = f"tree {len(self._definitions)}"
        self._definitions[name] = {}
        reference = {"$ref": f"#/$defs/{name.replace(' ', '%20')}"}
        self._definitions[name] |= {
            "type": "object",
            "properties": {
                "value": self._any(depth - 1),
                "left": reference,
                "many": {"type": "array", "items": reference},
            },
            "required": ["value"],
            "additionalProperties": False,
        }
        self._definitions[name]["properties"]["many"]["maxItems"] = 2
        return reference if self._chance(0.5) else {"anyOf": [{"type": "null"}, reference]}

    def _string(self, _depth: int = 0) -> Schema:
        kind = self._draw.randrange(3)
        if kind == 0:
            return {"type": "string", "pattern": self._draw.choice(PATTERNS)}
        if kind == 1:
            return {"type": "string", "format": self._draw.choice(FORMATS)}
        least = self._draw.randint(0, 3)
        return {"type": "string", "minLength": least, "maxLength": self._draw.randint(least, self._max_length)}

    def _integer(self, _depth: int = 0) -> Schema:
        low = self._draw.randint(-(10 ** self._draw.randint(0, 6)), 10 ** self._draw.randint(0, 6))
        schema: Schema = {"type": "integer"}
        if self._chance(0.7):
            schema[self._draw.choice(("minimum", "exclusiveMinimum"))] = low
        if self._chance(0.7):
            schema["maximum"] = low + self._draw.randint(1, 10 ** self._draw.randint(1, 5))
        return schema

    def _number(self, _depth: int = 0) -> Schema:
        low = round(self._draw.uniform(-1000, 1000), self._draw.randint(0, 4))
        schema: Schema = {"type": "number"}
        if self._chance(0.7):
            schema[self._draw.choice(("minimum", "exclusiveMinimum"))] = low
        if self._chance(0.7):
            schema["maximum"] = round(low + self._draw.uniform(0.1, 100), self._draw.randint(1, 4))
        return schema

    def _enum(self, _depth: int = 0) -> Schema:
        values: list[Any] = [*WORDS, 1, 2.5, None, True, [1, "two"], {"three": [None]}]
        return {"enum": self._draw.sample(values, self._draw.randint(1, 5))}

    def _const(self, _depth: int = 0) -> Schema:
        return {"const": self._draw.choice([*WORDS, 0, -1.5, False, {}, []])}

    def _boolean(self, _depth: int = 0) -> Schema:
        return {"type": "boolean"}

    def _nullable(self, _depth: int = 0) -> Schema:
        schema = self._draw.choice((self._string, self._integer, self._boolean))()
        return {**schema, "type": [schema["type"], "null"]}

    def _chance(self, share: float) -> bool:
        return self._draw.random() < share


def wild_schema(seed: int) -> Any:
    """A schema of keywords thrown together: often contradictory, recursive or unsupported."""
    draw = random.Random(seed)
    root = _wild(draw, 3)
    if isinstance(root, dict):
        root["$defs"] = {name: _wild(draw, 2) for name in ("a", "b", "c")}
    return root


def _wild(draw: random.Random, depth: int) -> Any:
    if draw.random() < 0.05:
        return draw.random() < 0.6
    names = list(_WILD) if depth > 0 else [name for name in _WILD if name not in _NESTED]
    count = draw.choice((1, 1, 2, 2, 3, 4))
    return {name: _WILD[name](draw, depth - 1) for name in draw.sample(names, count)}


def _some(draw: random.Random, depth: int) -> list[Any]:
    return [_wild(draw, depth) for _ in range(draw.randint(1, 3))]


def _some_types(draw: random.Random, _depth: int) -> Any:
    types = ["object", "array", "string", "number", "integer", "boolean", "null"]
    return draw.choice(types) if draw.random() < 0.7 else draw.sample(types, draw.randint(1, 3))


_SCALARS: list[Any] = [0, 1, 1.0, 2.5, -3, "", "a", "kind", None, True, False, [1], {"a": 1}]
_NESTED = frozenset({"properties", "additionalProperties", "items", "prefixItems", "anyOf", "oneOf", "allOf", "$ref"})
_WILD = {
    "type": _some_types,
    "enum": lambda draw, _: draw.sample(_SCALARS, draw.randint(1, 5)),
    "const": lambda draw, _: draw.choice(_SCALARS),
    "properties": lambda draw, depth: {name: _wild(draw, depth) for name in draw.sample(["a", "b", "ab", "kind"], 2)},
    "required": lambda draw, _: draw.sample(["a", "b", "ab", "kind", "c"], draw.randint(0, 2)),
    "additionalProperties": _wild,
    "minProperties": lambda draw, _: draw.randint(0, 2),
    "maxProperties": lambda draw, _: draw.randint(0, 4),
    "items": _wild,
    "prefixItems": _some,
    "minItems": lambda draw, _: draw.randint(0, 3),
    "maxItems": lambda draw, _: draw.randint(0, 4),
    "uniqueItems": lambda draw, _: False,
    "minLength": lambda draw, _: draw.randint(0, 4),
    "maxLength": lambda draw, _: draw.randint(0, 6),
    "pattern": lambda draw, _: draw.choice(PATTERNS),
    "format": lambda draw, _: draw.choice(FORMATS),
    "minimum": lambda draw, _: draw.choice([-5, 0, 0.5, 1, 2.25, 100]),
    "maximum": lambda draw, _: draw.choice([-1, 0, 0.5, 3, 7.125, 1000]),
    "exclusiveMinimum": lambda draw, _: draw.choice([-5, 0, 0.5, 1]),
    "exclusiveMaximum": lambda draw, _: draw.choice([0.5, 3, 7.125, 1000]),
    "anyOf": _some,
    "oneOf": _some,
    "allOf": _some,
    "$ref": lambda draw, _: draw.choice(["#", "#/$defs/a", "#/$defs/b", "#/$defs/c", "#/properties/a"]),
}
