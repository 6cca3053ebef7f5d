"""JSON's own rules."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.chat.grammar.expressions import Grammar, Literal, Reference
from server.chat.grammar.json_values import (
    INTEGER,
    NUMBER,
    OBJECT,
    RULES,
    STRING,
    VALUE,
    references,
    with_used_rules,
)
from server.chat.grammar.limits import check_grammar
from tests.grammar_tools import accepts, sample

KINDS = {VALUE: object, OBJECT: dict, STRING: str, NUMBER: int | float, INTEGER: int}


def grammar(start: Reference) -> Grammar:
    fragment = with_used_rules(start, {})
    return Grammar({"root": fragment.start, **fragment.rules})


@pytest.mark.parametrize("start", KINDS, ids=lambda start: start.name)
def test_samples_are_json(start: Reference) -> None:
    made = grammar(start)
    check_grammar(made)
    assert all(isinstance(json.loads(sample(made, seed)), KINDS[start]) for seed in range(50))


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text('ab é\n"\\', max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('kä"', max_size=2), inner, max_size=3),
        max_leaves=8,
    )
)
def test_values_in_the_style_of_json_dumps(value: object) -> None:
    assert accepts(grammar(VALUE), json.dumps(value, ensure_ascii=False))


def test_with_used_rules() -> None:
    rules = {"a": Reference("b"), "b": Literal("x"), "c": Reference("json-value")}
    assert with_used_rules(Reference("a"), rules).rules == {"a": Reference("b"), "b": Literal("x")}
    assert {name for rule in RULES.values() for name in references(rule)} <= set(RULES)
