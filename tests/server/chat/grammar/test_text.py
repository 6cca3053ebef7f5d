"""Plain text beside calls: everything but a call's opener and the JSON of a call, and engines bear it at any length."""

from __future__ import annotations

import re
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from engine_build.llama_cpp.runtime.ebnf import lark_from_ebnf
from server.chat.grammar.expressions import ROOT, Grammar, to_ebnf
from server.chat.grammar.limits import check_grammar, expanded_size
from server.chat.grammar.nullable import normalized
from server.chat.grammar.text import text_without_calls
from tests.grammar_tools import accepts, sample

OPENER = "<tool_call>"
CALL = re.compile(
    "<tool_call>|" + r'"(arguments|parameters)"~:~\{'.replace("~", r"[ \t\n\r]*"),
)


@lru_cache
def grammar(opener: str = OPENER) -> Grammar:
    fragment = text_without_calls(opener)
    return Grammar({ROOT: fragment.start, **fragment.rules})


@pytest.mark.parametrize(
    "text",
    [
        "Hello, world!",
        "a",
        "\n",
        '"',
        "<",
        "Wörter, 中文 and 😀",
        "a < b, <tool>, <tool_call, </tool_call>, <<tool_cal>l>",
        '{"name": "Bob", "age": 3}',
        '{"name": "f", "arguments"',
        '{"name": "f", "arguments" }',
        '{"name": "f", "parameter": 1}',
        '{"name": "f", "argument": 1}',
        '{"name": "f", "arguments": 3}',
        '{"name": "f", "arguments": "{}"}',
        '{"name": "f", "arguments" {}}',
        '{"names": "f", "argumentss": {}}',
        "{'name': 'f', 'arguments': {}}",
        '"arguments"\u00a0: {',
    ],
)
def test_plain_text(text: str) -> None:
    assert accepts(grammar(), text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<tool_call>",
        "text <tool_call>\n",
        "<<tool_call>",
        "<tool_cal<tool_call>",
        '{"name": "f", "arguments": {}}',
        '{"name":"f","parameters":{}}',
        '{"arguments": {}, "name": "f"}',
        '\n{\n\t"name" : "f" ,\r\n "arguments" : \t {',
        '{"function": "f", "parameters": {',
        '"arguments" "arguments": {',
        '"arguments": "parameters":{',
        '{"id": "1", "name": "<tool", "arguments": {}}',
        '""parameters":{',
    ],
)
def test_calls_and_nothing(text: str) -> None:
    assert not accepts(grammar(), text)


WORDS = ["<tool_call>", "<tool_", '"arguments"', '"parameters"', ":", "{", ",", '"x"', '"', " ", "\n", "\\"]
TEXTS = st.one_of(
    st.text('<tool_cal>"{: ,argumentspx\\\n', max_size=30),
    st.lists(st.sampled_from([*WORDS, *'<n":,x']), max_size=12).map("".join),
    st.lists(st.sampled_from(['"parameters"', ":", '"x"', "{", '"arguments"', " "]), max_size=9).map("".join),
)


@given(TEXTS)
def test_exactly_the_texts_without_calls(text: str) -> None:
    assert accepts(grammar(), text) == (text != "" and CALL.search(text) is None)


@pytest.mark.parametrize("seed", range(100))
def test_samples_are_no_calls(seed: int) -> None:
    text = sample(grammar(), seed, repeats=8)
    assert text
    assert CALL.search(text) is None


@pytest.mark.parametrize("opener", ["<tool_call>", "[TOOL_CALLS]", "aab", "<", '"name"', "🎉é", "name", ".*"])
def test_any_opener(opener: str) -> None:
    assert not accepts(grammar(opener), f"x{opener}y")
    assert accepts(grammar(opener), "x" + opener[:-1]) or opener == "<"
    for seed in range(10):
        assert opener not in sample(grammar(opener), seed, repeats=8)


def test_it_is_small_and_always_the_same() -> None:
    check_grammar(grammar())
    assert normalized(grammar()) == grammar()
    assert len(grammar().rules) < 30
    assert sum(map(expanded_size, grammar().rules.values())) < 2_000
    text_without_calls.cache_clear()
    assert to_ebnf(grammar()) == to_ebnf(grammar.__wrapped__())


@pytest.mark.parametrize(
    "piece", ["word ", '"', "<", '"arguments": ', '"arguments"', "\\", '"parameters" :\n', "<tool_call"]
)
def test_llguidance_bears_long_texts(piece: str) -> None:
    """A row of its parser may have 2,000 items; with recursion instead of loops each character would add one."""
    matcher = LLMatcher(LLTokenizer("byte"), lark_from_ebnf(to_ebnf(grammar())), log_level=0)
    tokens = list((piece * 1_000).encode())
    assert matcher.try_consume_tokens(tokens) == len(tokens)
    assert matcher.is_accepting()
    matcher.try_consume_tokens(list(b'\n<tool_call {"name": "x", "arguments" :'))
    assert matcher.try_consume_tokens(list(b"{")) == 0
