"""Which function of the code is read, and how the schema is written."""

from __future__ import annotations

from typing import Any

import pytest

from server.chat.function_code import LONGEST_CODE, parameters_of

from .reading import ANY_OBJECT, read, takes

CHOICES = {
    "the last of the name": ("def f(a): pass\ndef f(b): pass", takes({"b": {}})),
    "the only one": ("def search(a): pass", takes({"a": {}})),
    "the only one outside classes": ("class A:\n    def g(self, b): pass\ndef search(a): pass", takes({"a": {}})),
    "none of several": ("def g(a): pass\ndef h(a): pass", ANY_OBJECT),
    "one of several in JavaScript": ("function g(a) {}\nfunction h(a) {}", ANY_OBJECT),
    "named in the other language": ("const x = `def g(b): pass`; function f(a) {}", takes({"a": {}})),
    "like a method in JavaScript": ("def g(a):\n    return {'a': a}\ndef h(b): pass", ANY_OBJECT),
    "in the documentation": ('"""\nfunction f(b) {}\n"""\ndef f(a): pass', takes({"a": {}})),
}


@pytest.mark.parametrize(("code", "schema"), CHOICES.values(), ids=CHOICES)
def test_which_function_is_read(code: str, schema: Any) -> None:
    assert read(code) == schema


def test_the_text_is_in_the_order_of_the_code() -> None:
    assert parameters_of("f", "def f(z: str, a: int = 1): pass") == (
        '{"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}, '
        '"required": ["z"], "additionalProperties": false}'
    )


def test_long_code_is_read_up_to_the_limit() -> None:
    code = "def f(a): pass\n#"
    assert read(code.ljust(LONGEST_CODE, "x")) == takes({"a": {}})
    assert read(code.ljust(LONGEST_CODE + 1, "x")) == ANY_OBJECT
