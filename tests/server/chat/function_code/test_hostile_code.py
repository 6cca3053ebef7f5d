"""Code that is made to do harm, and any text at all: there is always a schema, and nothing runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from server.chat.function_code import LONGEST_CODE, LONGEST_SCHEMA, parameters_of
from server.chat.function_code.outline import Scope
from server.chat.function_code.schemas import MOST_FIELDS
from server.chat.function_code.tokens import python_tokens, typescript_tokens

ANY_OBJECT = '{"type": "object"}'
KEYWORDS = {
    *("type", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems"),
    *("enum", "anyOf"),
}


def parameters(count: int) -> str:
    return ", ".join(f"a{each}" for each in range(count))


UNREADABLE = {
    "brackets without end": "(" * 50_000,
    "null bytes": "\0" * 1_000,
    "a lone surrogate": "def f(a): pass  # \ud800",
    "too many parameters": f"def f({parameters(MOST_FIELDS + 1)}): pass",
    "very many parameters": f"def f({parameters(15_000)}): pass",
    "too many parameters in TypeScript": f"function f({parameters(MOST_FIELDS + 1)}) {{}}",
    "a name longer than any schema": f"def f({'a' * LONGEST_SCHEMA}): pass",
    "types that multiply": "".join(
        f"type T{i} = {{ a: T{i + 1}; b: T{i + 1}; c: T{i + 1}; d: T{i + 1} }}\n" for i in range(9)
    )
    + "function f(a: T0) {}",
    "a big type, often": f"type T = {{ {'; '.join(f'a{each}: string' for each in range(150))} }}\n"
    + f"function f({', '.join(f'a{each}: T' for each in range(150))}) {{}}",
    "too long": "def f(a): pass".ljust(LONGEST_CODE + 1),
}


@pytest.mark.parametrize("code", UNREADABLE.values(), ids=UNREADABLE)
def test_code_that_can_not_be_read_takes_any_object(code: str) -> None:
    assert parameters_of("f", code) == ANY_OBJECT


TAKES_ANYTHING = {
    "deep brackets": f"def f(a={'(' * 60_000}{')' * 60_000}): pass",
    "a deep type": f"def f(a: {'list[' * 5_000}int{']' * 5_000}): pass",
    "a broken deep type": f"def f(a: {'list[' * 20_000}): pass\n{']' * 10}",
    "a wide union": f"def f(a: {' | '.join(['int'] * 20_000)}): pass",
    "a wide literal": f"def f(a: Literal[{', '.join(map(str, range(15_000)))}]): pass",
    "a deep type in TypeScript": f"function f(a: {'Array<' * 5_000}string{'>' * 5_000}) {{}}",
    "a wide union in TypeScript": f"function f(a: {' | '.join(['string'] * 12_000)}) {{}}",
    "a chain of types": "".join(f"T{each} = T{each + 1}\n" for each in range(5_000)) + "def f(a: T0): pass",
    "a chain of classes": "".join(f"class T{each}(T{each + 1}): a: int\n" for each in range(3_000))
    + "def f(a: T0): pass",
    "quotes within quotes": "def f(a: " + '"' + "'" * 50_000 + '"): pass',
    "a type of itself": "T = T\ndef f(a: T): pass",
}


@pytest.mark.parametrize("code", TAKES_ANYTHING.values(), ids=TAKES_ANYTHING)
def test_a_type_that_can_not_be_read_leaves_the_parameter_open(code: str) -> None:
    schema: dict[str, Any] = json.loads(parameters_of("f", code))
    assert list(schema["properties"]) == ["a"]
    _check(schema)
    assert len(json.dumps(schema)) < 1_000


# Some of these took a parser with error recovery minutes.
CONFUSING = [
    *("^-", "-->", "exec /*", "} !", "***`*", "/[", "`${`", "'''\\", "f(", "(a):", "type T=", "class a{", "a=>", "\na"),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", CONFUSING)
def test_confusing_code_is_read_in_time(unit: str) -> None:
    _check(json.loads(parameters_of("f", unit * (LONGEST_CODE // 8 // len(unit)))))


def test_nothing_of_the_code_runs(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    touch = f"pathlib.Path({str(witness)!r}).touch()"
    python = f'''
import pathlib
{touch}
@({touch})
class T({touch}):
    a: int = {touch}
def f(a: {touch}, b: "{touch}", c: T = {touch}): pass
'''
    write = f"require('fs').writeFileSync({str(witness)!r}, '')"
    javascript = f"{write}\nfunction f(a, b = `${{{write}}}`, c) {{}}"
    for code in (python, javascript):
        assert list(json.loads(parameters_of("f", code))["properties"]) == ["a", "b", "c"]
    assert not witness.exists()


WORDS = [
    *"()[]{}<>:;,.=|&?'\"`/\\*@#-$\n \0\u00e9\ud800",
    *("=>", "...", "**", "${", "'''", '"""', "//", "/*", "*/", "\n    "),
    *(
        "def ",
        "async ",
        "lambda ",
        "class ",
        "function ",
        "const ",
        "export ",
        "type ",
        "interface ",
        "enum ",
        "extends ",
    ),
    *(
        "f",
        "f(",
        "a",
        "b: ",
        "self",
        "T",
        "int",
        "str",
        "string",
        "None",
        "null",
        "list[",
        "Array<",
        "Literal[",
        "Union[",
    ),
    *(
        "Optional[",
        "tuple[",
        "Record<",
        "Partial<",
        "dict[",
        "Enum",
        "TypedDict",
        "1",
        "-1.5",
        "'x'",
        "): pass",
        ") {}",
    ),
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=60).map("".join)))
def test_any_text_gives_a_schema(code: str) -> None:
    text = parameters_of("f", code)
    assert text == parameters_of("f", code)
    _check(json.loads(text))


@given(st.lists(st.sampled_from(WORDS), max_size=20).map("".join))
def test_any_types_give_a_schema(types: str) -> None:
    for code in (
        f"def f(a: {types}): pass",
        f"function f(a: {types}) {{}}",
        f"class T:\n    a: {types}\ndef f(a: T): pass",
    ):
        _check(json.loads(parameters_of("f", code)))


@given(st.text(), st.text(max_size=3))
def test_any_name_will_do(code: str, name: str) -> None:
    _check(json.loads(parameters_of(name, code)))


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=60).map("".join)))
def test_tokens_are_what_is_written(code: str) -> None:
    words = [token.text for token in python_tokens(code).tokens]
    position = 0
    for word in words:
        position = code.index(word, position) + len(word)
    for span in (python_tokens(code), typescript_tokens(code)):
        for opener, closer in span.closers.items():
            assert span.tokens[opener].text + span.tokens[closer].text in ("()", "[]", "{}", "${}")


def test_a_scope_has_no_end_of_depth() -> None:
    scope, span = Scope(types={}), python_tokens("int")
    while (inner := scope.inside(span)) is not None:
        scope = inner
    assert scope.depth < 20


def _check(schema: dict[str, Any]) -> None:
    """The schema is valid, an object's, made of known keywords, not deep, and something satisfies all of it."""
    Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    pending = [(schema, 0)]
    while pending:
        each, depth = pending.pop()
        assert set(each) <= KEYWORDS
        assert depth < 40
        assert set(each.get("required", ())) <= set(each.get("properties", ()))
        assert each.get("enum") != []
        assert each.get("anyOf") != []
        within = [*each.get("properties", {}).values(), *each.get("anyOf", ()), *each.get("prefixItems", ())]
        within += [each[key] for key in ("items", "additionalProperties") if isinstance(each.get(key), dict)]
        pending += [(inner, depth + 1) for inner in within]
