"""Whatever a grammar derives satisfies its schema, as the jsonschema package judges."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from server.chat.grammar.expressions import Grammar, GuideError, to_ebnf
from server.chat.grammar.json_schema import schema_fragment
from server.chat.grammar.limits import check_grammar
from tests.grammar_tools import sample
from tests.schema_samples import random_schema, wild_schema

JUDGE = jsonschema.Draft202012Validator
GROUPS = range(10)


def grammar_of(schema: Any) -> Grammar:
    fragment = schema_fragment(json.dumps(schema))
    return Grammar({"root": fragment.start, **fragment.rules})


def complaints(schema: Any, grammar: Grammar, seeds: range) -> Iterator[str]:
    judge = JUDGE(schema, format_checker=JUDGE.FORMAT_CHECKER)
    for seed in seeds:
        text = sample(grammar, seed)
        value = json.loads(text)
        yield from (f"{text}: {error.message}" for error in judge.iter_errors(value))
        if "\\" not in text and "e" not in text.lower():  # such texts have one way to be written, less zeros
            assert json.loads(json.dumps(value, ensure_ascii=False)) == value


@pytest.mark.parametrize("group", GROUPS)
def test_supported_schemas(group: int) -> None:
    for seed in range(group * 30, group * 30 + 30):
        schema = random_schema(seed)
        JUDGE.check_schema(schema)
        grammar = grammar_of(schema)
        check_grammar(grammar)
        assert list(complaints(schema, grammar, range(seed, seed + 4))) == [], schema


@pytest.mark.parametrize("group", GROUPS)
def test_wild_schemas_are_kept_or_refused(group: int) -> None:
    kept = 0
    for seed in range(group * 200, group * 200 + 200):
        schema = wild_schema(seed)
        try:
            grammar = grammar_of(schema)
        except GuideError:
            continue
        kept += 1
        check_grammar(grammar)
        assert list(complaints(schema, grammar, range(seed, seed + 3))) == [], schema
    assert kept > 50


def test_small_schemas_for_small_models() -> None:
    schemas = [random_schema(seed, max_depth=1, max_length=12, max_items=2) for seed in range(40)]
    assert all(len(to_ebnf(grammar_of(schema))) < 8_000 for schema in schemas)
    assert len({json.dumps(schema) for schema in schemas}) > 20
    assert random_schema(3) == random_schema(3)
