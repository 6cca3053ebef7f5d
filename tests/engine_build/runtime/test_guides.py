"""Which ids a guide allows, with a vocabulary of bytes and some longer tokens."""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_build.llama_cpp.runtime import guide_time, guides
from engine_build.llama_cpp.runtime.errors import RequestError
from engine_build.llama_cpp.runtime.guided import KINDS, Guide, GuideText
from engine_build.llama_cpp.runtime.guides import Guides
from engine_build.llama_cpp.runtime.sampling import SamplingError
from server.chat.grammar.expressions import Grammar, to_ebnf
from tests.grammar_samples import grammars
from tests.grammar_tools import accepts

from .guide_samples import END_ID, LONGER, OTHER_ID, TOKENS, TURN_ID, reads, walk

GUIDES = Guides(TOKENS)
AB = 259 + LONGER.index("ab")


def start(kind: str, text: str = "", stop_words: tuple[tuple[int, ...], ...] = ()) -> Guide:
    return GUIDES.start(GuideText(kind=kind, text=text), end_id=END_ID, stop_words=stop_words)


SCHEMA = (
    '{"type": "object", "properties": {"a": {"enum": ["x", 12]}}, "required": ["a"], "additionalProperties": false}'
)


@pytest.mark.parametrize(
    ("kind", "text", "taken", "refused"),
    [
        ("json", "", ["{}", "[]", '{"a": [1, true, null, "é\\n"]}', "[[], {}]"], ["1", '"a"', "true", "", "{", "{}x"]),
        ("json_schema", SCHEMA, ['{"a": "x"}', '{"a":12}'], ["{}", '{"a": "y"}', '{"a": "x", "b": 1}', "12"]),
        ("json_schema", "true", ["1", "{}", '"a"'], ["", "x"]),
        ("regex", "a+|[é😀]b?", ["a", "aaa", "é", "😀b"], ["", "ab", "b"]),
        ("regex", 'a/"b', ['a/"b'], ["a"]),
        ("ebnf_grammar", 'root ::= "ab" [é😀]{1,2}', ["abé", "ab😀é"], ["ab", "abéé😀"]),
    ],
)
def test_kinds(kind: str, text: str, taken: list[str], refused: list[str]) -> None:
    for each in (*taken, *refused):
        assert reads(start(kind, text), each) is (each in taken), each


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("json_schema", "{", "guided_decoding_guide is not usable as JSON: Expecting"),
        ("json_schema", '{"type": "null"} "x"', "guided_decoding_guide is not usable as JSON: Extra data"),
        ("json_schema", '{"a":' * 100_000, "guided_decoding_guide is not usable as JSON: maximum recursion depth"),
        ("json_schema", "[1]", "schema must be an object or boolean"),
        ("json_schema", '{"not": {}}', 'Unimplemented keys: ["not"]'),
        ("json_schema", "false", "Unsatisfiable schema"),
        ("regex", "a(b", "error: unclosed group"),
        ("regex", "(?=a)b" + "x" * 5000, "look-around, including look-ahead and look-behind, is not supported"),
        ("regex", r"[^\x00-\x{10FFFF}]", "no text can come of it"),
        ("ebnf_grammar", "root ::= x", "line 1, column 10: there is no rule x"),
        ("ebnf_grammar", 'root ::= "a" | [^\\x00-\\U0010FFFF] root ::= "b"', "there is a rule root already"),
        ("ebnf_grammar", "root ::= [^\\x00-\\U0010FFFF]", "no text can come of it"),
    ],
)
def test_refused_guides(kind: str, text: str, problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        start(kind, text)
    assert str(caught.value).startswith("guided_decoding_guide")
    assert problem in str(caught.value)
    assert "llguidance" not in str(caught.value)
    assert len(str(caught.value)) < 350


def test_endings_are_allowed_where_the_guide_may_end_and_nowhere_else() -> None:
    guide = start("ebnf_grammar", 'root ::= "ab" "c"?', stop_words=((TURN_ID,), (ord("c"),), (OTHER_ID, TURN_ID)))
    assert not guide.allows(END_ID)
    assert not guide.mask()[[END_ID, TURN_ID, OTHER_ID]].any()
    guide.accept(AB)
    assert guide.may_end
    assert guide.mask().nonzero()[0].tolist() == [ord("c"), END_ID, TURN_ID]
    assert guide.allows(TURN_ID)
    assert not guide.allows(OTHER_ID)
    guide.accept(TURN_ID)  # an end, and no text
    assert guide.may_end
    assert not guide.is_complete


def test_a_letter_as_end_id_is_an_end() -> None:
    guide = GUIDES.start(GuideText(kind="regex", text="ab*"), end_id=ord("b"))
    assert not guide.allows(ord("b"))
    guide.accept(ord("a"))
    assert guide.allows(ord("b"))
    assert guide.may_end


@pytest.mark.parametrize(
    ("kind", "text", "output"),
    [
        ("json", "", '{"a": [12]}'),
        ("json_schema", SCHEMA, '{"a": 12}'),
        ("regex", "ab{2}", "abb"),
        ("ebnf_grammar", 'root ::= ("a" | "ab") "c"', "abc"),
    ],
)
def test_complete_when_nothing_may_follow(kind: str, text: str, output: str) -> None:
    guide = start(kind, text)
    for byte in output.encode():
        assert not guide.is_complete
        guide.accept(byte)
    assert guide.is_complete
    assert guide.mask().nonzero()[0].tolist() == [END_ID]
    assert not any(guide.allows(token) for token in range(256))


def test_guides_of_one_text_do_not_touch_each_other() -> None:
    first, second = (start("ebnf_grammar", 'root ::= "ab" | "cd"') for _ in range(2))
    first.accept(ord("a"))
    second.accept(ord("c"))
    third = start("ebnf_grammar", 'root ::= "ab" | "cd"')
    assert [reads(guide, text) for guide, text in ((first, "b"), (second, "d"), (third, "ab"))] == [True] * 3


def test_empty_text_alone() -> None:
    guide = start("ebnf_grammar", 'root ::= ""')
    assert guide.may_end
    assert guide.mask().nonzero()[0].tolist() == [END_ID]


def test_without_an_end_id() -> None:
    guide = GUIDES.start(GuideText(kind="regex", text="a?"))
    assert guide.mask().nonzero()[0].tolist() == [ord("a")]
    assert guide.may_end


def test_a_token_that_is_not_allowed_ends_in_an_error() -> None:
    guide = start("regex", "ab")
    with pytest.raises(SamplingError, match="the guide cannot be followed further"):
        guide.accept(ord("x"))
    with pytest.raises(SamplingError, match="the guide cannot be followed further"):
        guide.allows(ord("a"))


def test_where_no_text_can_go_on_nothing_is_allowed() -> None:
    guide = start("ebnf_grammar", 'root ::= "a" [^\\x00-\\U0010FFFF]')
    guide.accept(ord("a"))
    assert not guide.may_end
    assert not guide.is_complete
    assert not guide.mask().any()


def test_a_mask_that_takes_too_long_leaves_everything_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guides, "_LIMITS", {"step_max_items": 10})
    guide = start("ebnf_grammar", 'root ::= ([a-z]{0,300}){0,300} "!"')
    mask = guide.mask()
    assert mask[ord("1")]
    assert not guide.allows(ord("1"))
    assert not mask[END_ID]
    guide.accept(AB)
    assert guide.allows(ord("!"))


AMBIGUOUS = 'root ::= p "!"\np ::= [a-z ] p p | [a-z ] p | [a-z ]'


def test_a_guide_that_takes_much_time_for_every_token_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """No single token takes too long, but all together do."""
    monkeypatch.setattr(guide_time, "_MORE_SECONDS_A_TOKEN", 0)
    guide = start("ebnf_grammar", AMBIGUOUS)

    def follow() -> None:
        for _ in range(5_000):
            assert guide.allows(ord("a"))
            guide.accept(ord("a"))

    started = time.thread_time()
    with pytest.raises(SamplingError, match="cannot be followed further: it can be read in too many ways at once"):
        follow()
    assert time.thread_time() - started < 1.5


@pytest.mark.parametrize("text", ["a?" * 32_000, "[a-z]*" * 10_900, "(a|b?)" * 10_900, "[a-z]{0,5}" * 6_500])
def test_expressions_do_not_take_long(text: str) -> None:
    started = time.process_time()
    with pytest.raises(RequestError):
        start("regex", text)
    assert time.process_time() - started < 8  # 2 s; without the limits up to 20


def test_only_grammars_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Guides(TOKENS)
    made: list[str] = []
    lark = {kind: lambda text, kind=kind: made.append(kind) or 'start: "a"' for kind in KINDS}
    monkeypatch.setattr(guides, "_LARK_FROM", lark)
    for _ in range(2):
        for kind in KINDS:
            mine.start(GuideText(kind=kind, text=""))
    assert sorted(made) == sorted([*KINDS, "json", "json_schema", "regex"])


class Panic(BaseException):
    """As pyo3's PanicException, which is no Exception either."""


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


def test_a_panic_while_compiling_is_the_request_s_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guides, "_LARK_FROM", {"regex": failing(Panic())})
    with pytest.raises(RequestError, match="guided_decoding_guide: it is too large"):
        start("regex", "panic")


@pytest.mark.parametrize(
    "ask", [lambda guide: guide.allows(97), lambda guide: guide.mask(), lambda guide: guide.accept(97)]
)
def test_a_panic_later_ends_this_request_alone(ask: Callable[[Guide], object]) -> None:
    matcher = SimpleNamespace(
        validate_tokens=failing(Panic()), consume_token=failing(Panic()), deep_copy=failing(Panic())
    )
    guide = guides.MatcherGuide(matcher, None, len(TOKENS), [])
    with pytest.raises(SamplingError, match="the guide cannot be followed further: it is too large"):
        ask(guide)


@pytest.mark.parametrize("name", ["may_end", "is_complete"])
@pytest.mark.parametrize("error", [Panic(), KeyboardInterrupt(), SystemExit()])
def test_only_panics_are_taken_for_errors(name: str, error: BaseException) -> None:
    matcher = SimpleNamespace(is_stopped=lambda: True, is_accepting=failing(error))
    guide = guides.MatcherGuide(matcher, None, len(TOKENS), [])
    with pytest.raises(SamplingError if isinstance(error, Panic) else type(error)):
        getattr(guide, name)


def test_missing_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ImportError, match=r"llguidance is not installed; run pip install 'llamarpc\[embedded\]'"):
        importlib.reload(guides)


@settings(max_examples=60, deadline=None)
@given(grammar=grammars(), seed=st.integers(0, 1000))
def test_walks_end_in_texts_of_the_grammar(grammar: Grammar, seed: int) -> None:
    try:
        guide = start("ebnf_grammar", to_ebnf(grammar))
    except RequestError:
        return  # it derives nothing; the test below holds it to that
    text, may_end = walk(guide, seed, most=12)
    if may_end:
        assert accepts(grammar, text.decode()), text


@settings(max_examples=60, deadline=None)
@given(grammar=grammars(), text=st.text('ab"\\[]^-é\n', max_size=6))
def test_reads_what_the_grammar_derives(grammar: Grammar, text: str) -> None:
    try:
        guide = start("ebnf_grammar", to_ebnf(grammar))
    except RequestError:
        assert not accepts(grammar, text)
        return
    assert reads(guide, text) is accepts(grammar, text)


def valid_json(text: str) -> bool:
    return isinstance(json.loads(text), dict | list)


def valid_for_schema(text: str) -> bool:
    jsonschema.validate(json.loads(text), json.loads(SCHEMA))
    return True


@pytest.mark.parametrize(
    ("kind", "text", "judge"),
    [
        ("json", "", valid_json),
        ("json_schema", SCHEMA, valid_for_schema),
        ("regex", "(a|ab)(bc|b)*[é😀]{1,3}", re.compile("(a|ab)(bc|b)*[é😀]{1,3}").fullmatch),
    ],
)
def test_walks_of_other_kinds(kind: str, text: str, judge: Callable[[str], object]) -> None:
    ended = 0
    for seed in range(40):
        output, may_end = walk(start(kind, text), seed, most=30)
        if may_end:
            ended += 1
            assert judge(output.decode()), output
    assert ended > 5
