"""JSON itself as grammar: the rules that are the same under every schema, in the one style that answers have.

The style is that of Python's `json.dumps`: a space after each comma and colon and nowhere else. Strings hold no \\u
escapes, so that a character of the value is always one character or one short escape of the text. Knows no schemas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .expressions import (
    Characters,
    Choice,
    Expression,
    Fragment,
    Literal,
    Reference,
    Repeat,
    Rules,
    Sequence,
    characters,
    choice,
    optional,
    sequence,
)

# What needs an escape in a string, and what most readers would stumble over.
NOT_PLAIN = ((0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F))

DIGIT = Characters(((0x30, 0x39),))
DIGIT_NOT_ZERO = Characters(((0x31, 0x39),))

VALUE, OBJECT, ARRAY, STRING, CHARACTER, NUMBER, INTEGER = (
    Reference(f"json-{kind}") for kind in ("value", "object", "array", "string", "character", "number", "integer")
)
MEMBER = Reference("json-member")
PLAIN = Reference("json-plain")  # a character without escape

_WHOLE = sequence(DIGIT_NOT_ZERO, Repeat(DIGIT, 0, 17))


def listed(item: Expression) -> Expression:
    """The item at least once, with commas between."""
    return sequence(item, Repeat(sequence(Literal(", "), item), 0, None))


RULES: Rules = {
    VALUE.name: choice(OBJECT, ARRAY, STRING, NUMBER, Literal("true"), Literal("false"), Literal("null")),
    OBJECT.name: sequence(Literal("{"), optional(listed(MEMBER)), Literal("}")),
    MEMBER.name: sequence(STRING, Literal(": "), VALUE),
    ARRAY.name: sequence(Literal("["), optional(listed(VALUE)), Literal("]")),
    STRING.name: sequence(Literal('"'), Repeat(CHARACTER, 0, None), Literal('"')),
    CHARACTER.name: choice(PLAIN, sequence(Literal("\\"), characters('"\\/bfnrt'))),
    PLAIN.name: Characters(NOT_PLAIN, negated=True),
    NUMBER.name: sequence(
        optional(Literal("-")),
        choice(Literal("0"), _WHOLE),
        optional(sequence(Literal("."), Repeat(DIGIT, 1, 15))),
        optional(sequence(characters("eE"), optional(characters("+-")), Repeat(DIGIT, 1, 2))),
    ),
    INTEGER.name: choice(Literal("0"), sequence(optional(Literal("-")), _WHOLE)),
}


def with_used_rules(start: Expression, rules: Rules) -> Fragment:
    """`start` with those of `rules`, and of JSON's own, that it leads to."""
    known = {**rules, **RULES}
    used = dict.fromkeys(references(start))
    waiting = list(used)
    while waiting:
        found = [name for name in references(known[waiting.pop()]) if name not in used]
        used.update(dict.fromkeys(found))
        waiting.extend(dict.fromkeys(found))
    return Fragment(start=start, rules={name: rule for name, rule in known.items() if name in used})


def references(expression: Expression) -> Iterator[str]:
    """Names of all rules that the expression refers to itself."""
    match expression:
        case Reference(name):
            yield name
        case Repeat(item):
            yield from references(item)
        case Sequence(parts) | Choice(parts):
            yield from _references_of_all(parts)


def _references_of_all(parts: Iterable[Expression]) -> Iterator[str]:
    for part in parts:
        yield from references(part)
