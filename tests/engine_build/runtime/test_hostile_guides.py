"""Guides made to hurt: each is refused, or followed for a while, or given up. None takes the process down or long."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from engine_build.llama_cpp.runtime.errors import RequestError
from engine_build.llama_cpp.runtime.guided import MOST_BYTES, GuideText
from engine_build.llama_cpp.runtime.guides import Guides
from engine_build.llama_cpp.runtime.sampling import SamplingError

from .guide_samples import END_ID, TOKENS


def chain(count: int) -> str:
    return "root ::= r0\n" + "".join(f"r{n} ::= r{n + 1}\n" for n in range(count)) + f'r{count} ::= "a"'


def schema_chain(count: int) -> str:
    links = {f"d{n}": {"properties": {"a": {"$ref": f"#/$defs/d{n + 1}"}}} for n in range(count)}
    return json.dumps({"$defs": {**links, f"d{count}": {"type": "null"}}, "$ref": "#/$defs/d0"})


HOSTILE = {
    "exponentially ambiguous": ("ebnf_grammar", 'root ::= "a" root "b" | "a" root "c" | "x"'),
    "ambiguous sequence": ("ebnf_grammar", 'root ::= (("a" | "b"){0,100}){0,100} "x"'),
    "large counts": ("ebnf_grammar", "root ::= ([a-z]{0,300}){0,300}"),
    "nested stars": ("ebnf_grammar", 'root ::= (("a"*)*)*'),
    "left recursion": ("ebnf_grammar", 'root ::= root root | "a"'),
    "unit cycles": ("ebnf_grammar", "root ::= x | y\nx ::= y | root\ny ::= x | root"),
    "deep nesting": ("ebnf_grammar", "root ::= " + "(" * 9_000 + '"a"' + ")" * 9_000),
    "deep repetitions": ("ebnf_grammar", "root ::= " + "(" * 3_000 + '"a"' + ")*" * 3_000),
    "deeper": ("ebnf_grammar", "(" * MOST_BYTES),
    "chain of rules": ("ebnf_grammar", chain(9_000)),
    "a megabyte of rules": ("ebnf_grammar", chain(60_000)),
    "a very long word": ("ebnf_grammar", 'root ::= "' + "a" * 300_000 + '"'),
    "thousands of equal alternatives": ("ebnf_grammar", "root ::= " + "|".join(['"aa"'] * 9_900)),
    "thousands of options, late": ("ebnf_grammar", 'root ::= "a"{30} ' + '"a"?' * 4_900),
    "never ending": ("ebnf_grammar", 'root ::= "a" root'),
    "empty": ("ebnf_grammar", 'root ::= ""'),
    "schemas in a row": ("json_schema", schema_chain(15_000)),
    "deep schema": ("json_schema", '{"items":' * 100_000 + "{}" + "}" * 100_000),
    "deep expression": ("regex", "(" * 100_000 + "a" + ")" * 100_000),
    "large expression": ("regex", "(((a|b){1,1000}){1,1000}){1,1000}x"),
    "expression of many states": ("regex", "(a|b)*a(a|b){500}"),
}


def follow(kind: str, text: str) -> None:
    guide = Guides(TOKENS).start(GuideText(kind=kind, text=text), end_id=END_ID)
    for _ in range(60):
        token = ord("a") if guide.allows(ord("a")) else int(guide.mask().argmax())
        if token == END_ID:
            return
        guide.accept(token)


@pytest.mark.parametrize("name", HOSTILE)
def test_survives(name: str) -> None:
    with suppress(RequestError, SamplingError):
        follow(*HOSTILE[name])
