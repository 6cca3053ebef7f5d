"""EBNF of callers: what is read, what is refused and where, and that engines read our notation as we do."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from engine_build.llama_cpp.runtime.ebnf import lark_from_ebnf
from server.chat.grammar.ebnf import parse_ebnf
from server.chat.grammar.expressions import Grammar, GuideError, to_ebnf
from tests.grammar_samples import LETTERS, grammars
from tests.grammar_tools import accepts, sample

ANY = r"[\u0000-\uD7FF\uE000-\U0010FFFF]"


READ = [
    ('root ::= "a"', 'root ::= "a"'),
    ('root ::= "a" "b" | [c] ""', 'root ::= "ab" | [c]'),
    ('root::="a"#comment\n # comment\n', 'root ::= "a"'),
    ('\r\nroot ::=\n\t"a"\n  | "b"\r\n| "c"', 'root ::= "a" | "b" | "c"'),
    ('root ::= (\n "a" # " in a comment\n | "b"\n)*', 'root ::= ("a" | "b")*'),
    ('root ::= "# no comment"', 'root ::= "# no comment"'),
    ('root ::= x "b"\nx ::= "a"', 'root ::= x "b"\nx ::= "a"'),
    ('x ::= "a"\nroot ::= x', 'root ::= x\nx ::= "a"'),
    ('root ::= "a"* "b"+ "c"? "d"{2} "e"{2,} "f"{ 2 , 3 }', 'root ::= "a"* "b"+ "c"? "d"{2} "e"{2,} "f"{2,3}'),
    ('root ::= "a" * ("b" "c") {2}', 'root ::= "a"* "bc"{2}'),
    ('root ::= ("a"*)* ("b"?){2}', 'root ::= ("a"*)* ("b"?){2}'),
    ('root ::= "a"{0} "b"', 'root ::= "b"'),
    ('root ::= "a" ()', 'root ::= "a"'),
    ("root ::= .", f"root ::= {ANY}"),
    (r'root ::= "\n\r\t\"\\\x41B\u00e9\U0001F600\[\]"', r'root ::= "\n\r\t\"\\AB\u00E9\U0001F600[]"'),
    ('root ::= "é😀\'"', 'root ::= "\\u00E9\\U0001F600\'"'),
    (r"root ::= [a-cx] [^a-c] [\]\[\-\^\"] [-a] [a-] [a^]", None),
    (r"root ::= [\x41-\x43\n] [\u0041-\u0042] [a\-c] [a-c-e]", r"root ::= [\nA-C] [A-B] [\u002Dac] [\u002Da-ce]"),
    (r"root ::= [^\n]*", r"root ::= [^\n]*"),
    (r"root ::= [\u0000-\U0010FFFF]", f"root ::= {ANY}"),
    ("root ::= [ \"'#]", r"root ::= [ \u0022-#']"),
    ('root ::= a_b a-b\na_b ::= "x"\na-b ::= "y"', 'root ::= x-a-ub a-b\nx-a-ub ::= "x"\na-b ::= "y"'),
    ('root ::= 1 -a\n1 ::= "x"\n-a ::= "y"', 'root ::= x-1 x--da\nx-1 ::= "x"\nx--da ::= "y"'),
    ('root ::= true Token\ntrue ::= "x"\nToken ::= "y"', 'root ::= x-true x-Token\nx-true ::= "x"\nx-Token ::= "y"'),
    ('root ::= x-1\nx-1 ::= "x"', 'root ::= x-x-d1\nx-x-d1 ::= "x"'),
    ('root ::= "(" root ")" | ""', 'root ::= "(" root ")" | ""'),
]


@pytest.mark.parametrize(("text", "expected"), READ, ids=[str(index) for index in range(len(READ))])
def test_read_as(text: str, expected: str | None) -> None:
    expected = expected or r"root ::= [a-cx] [^a-c] [\u0022\u002D\u005B\u005D-\u005E] [\u002Da] [\u002Da] [\u005Ea]"
    assert to_ebnf(parse_ebnf(text)) == expected + "\n"


REFUSED = [
    ("", "", "no rule root"),
    ('start ::= "a"', "", "no rule root"),
    ('root ::= "a"\n\n  root ::= "b"', "line 3, column 3", "another rule root"),
    ('root ::= "a" x\n', "line 1, column 14", "no rule x"),
    ('root ::= "a"\nx ::= y', "line 2, column 7", "no rule y"),
    ("root ::=", "line 1, column 9", 'nothing is written ""'),
    ('root ::= "a" |', "line 1, column 15", 'nothing is written ""'),
    ('root ::= ("a" | )', "line 1, column 17", 'nothing is written ""'),
    ('root ::= | "a"', "line 1, column 10", 'nothing is written ""'),
    ('root ::= ("a"', "line 1, column 10", "not closed"),
    ('root ::= "a")', "line 1, column 13", "a rule should begin here"),
    ('root "a"', "line 1, column 1", "a rule should begin here"),
    ('"a"', "line 1, column 1", "a rule should begin here"),
    ('root = "a"', "line 1, column 6", "::="),
    ('root : "a"', "line 1, column 6", "::="),
    ('root ::= "a', "line 1, column 10", "not closed"),
    ('root ::= "a\n"', "line 1, column 10", "not closed"),
    ("root ::= [a\n]", "line 1, column 10", "not closed"),
    ('root ::= "a"{2', "line 1, column 13", "not closed"),
    ("root ::= 'a'", "line 1, column 10", "double quotes"),
    ("root ::= []", "line 1, column 10", "empty"),
    ("root ::= [^]", "line 1, column 10", "empty"),
    (r"root ::= [^\u0000-\U0010FFFF]", "line 1, column 10", "nothing would match"),
    ("root ::= [z-a]", "line 1, column 10", "from low to high"),
    (r'root ::= "x" "\q"', "line 1, column 14", r"\q is not supported"),
    (r'root ::= "\x4"', "line 1, column 10", r"\x is not supported"),
    (r'root ::= "\ud800"', "line 1, column 10", "no character"),
    (r'root ::= "\U00110000"', "line 1, column 10", "no character"),
    ('root ::= "\ud800"', "line 1, column 10", "no character"),
    (r"root ::= [\d]", "line 1, column 10", r"\d is not supported"),
    ('root ::= "a"**', "line 1, column 14", "repeated already"),
    ('root ::= "a"+{2}', "line 1, column 14", "repeated already"),
    ("root ::= *", "line 1, column 10", "nothing before it"),
    ("root ::= {2}", "line 1, column 10", "nothing before it"),
    ('root ::= "a"{}', "line 1, column 13", "no count"),
    ('root ::= "a"{,3}', "line 1, column 13", "no count"),
    ('root ::= "a"{-1}', "line 1, column 13", "no count"),
    ('root ::= "a"{3,2}', "line 1, column 13", "ends below"),
    ('root ::= "a"{10001}', "line 1, column 13", "more than 10,000"),
    ('root ::= "a"{1,99999999999999999999}', "line 1, column 13", "more than 10,000"),
    ('root ::= "a" (="b")', "line 1, column 15", "lookahead"),
    ("root ::= <think>", "line 1, column 10", "tokens are not supported"),
    ("root ::= !<[1000]>", "line 1, column 10", "tokens are not supported"),
    ("root ::= ::= a", "line 1, column 10", "nothing before it"),
    ("root ::= \x00", "line 1, column 10", "means nothing"),
    ("root ::= é", "line 1, column 10", "means nothing"),
    ("root ::= " + "(" * 51 + '"a"' + ")" * 51, "line 1, column 60", "more than 50 deep"),
    ('root ::= "a"\nx_y ::= x_y "a" | "b"', "line 2, column 1", "x_y: it can begin with itself (x_y -> x_y)"),
    ('root ::= "a" x_y\nx_y ::= "b" x_y', "line 1, column 1", "root: it can never end"),
    ('root ::= ("a"{1000}){1000}', "line 1, column 1", "root: it has 1,000,000 symbols"),
    ("root ::= " + "a " * 100_000, "line 1, column 200006", "more than 100,000 words"),
    ("#" * 600_000, "", "600,000 characters"),
    ("root ::= " + "." * 17_000 + "\n" + "x ::= " + "." * 17_000, "", "the grammar takes"),
]


@pytest.mark.parametrize(("text", "place", "problem"), REFUSED, ids=[str(index) for index in range(len(REFUSED))])
def test_refused(text: str, place: str, problem: str) -> None:
    with pytest.raises(GuideError) as caught:
        parse_ebnf(text)
    assert (caught.value.place, problem in caught.value.problem) == (place, True), caught.value


HOSTILE = [
    "root ::= " + "(" * 500_000,
    "root ::= [" + "a" * 500_000 + "]",
    "root ::= [" + "a-" * 250_000 + "a]",
    'root ::= "' + "\\n" * 250_000 + '"',
    'root ::= "' + "\\" * 499_999,
    "root ::= " + "a " * 250_000 + '\na ::= "x"',
    "root ::= " + '"a" | ' * 80_000 + '"b"',
    "root ::= " + '"a"* ' * 100_000,
    "root ::= " + '("a"|"b")' * 50_000,
    "root ::= r0\n" + "".join(f"r{index} ::= r{index + 1}\n" for index in range(9_900)) + 'r9900 ::= "x"',
    "root ::= r0\n" + "".join(f"r{index} ::= r{index + 1} | r{index + 1}\n" for index in range(9_000)) + "r9000 ::= r0",
    "".join(f'{"_" * (index % 50)}r{index} ::= "x"\n' for index in range(9_000)) + 'root ::= "x"',
    "\n" * 500_000 + "!",
    '"' * 500_000,
    "root ::= " + "x" * 500_000,
    "root ::= root" + "x" * 200_000 + "\nroot" + "x" * 200_000 + " ::= root",
    'root ::= "a"{' + "9" * 500_000 + "}",
    "{" * 500_000,
    "root ::= " + "(" * 50 + '"a"*' + ")*" * 50,
]


@pytest.mark.parametrize("text", HOSTILE, ids=[str(index) for index in range(len(HOSTILE))])
def test_hostile_texts_are_read_or_refused_quickly(text: str) -> None:
    start = time.process_time()
    try:
        size, limit = len(to_ebnf(parse_ebnf(text))), 600_000
    except GuideError as error:
        size, limit = len(str(error)), 400
    assert size < limit
    assert time.process_time() - start < 10  # most below a second, all below two


@given(grammars())
def test_reads_what_to_ebnf_writes(grammar: Grammar) -> None:
    read = parse_ebnf(to_ebnf(grammar))
    for seed in range(4):
        assert accepts(read, sample(grammar, seed))
        assert accepts(grammar, sample(read, seed))


@given(grammars(), st.text(LETTERS, max_size=6))
def test_llguidance_reads_it_the_same_way(grammar: Grammar, text: str) -> None:
    lark = lark_from_ebnf(to_ebnf(grammar))
    for each in (text, sample(grammar, 0), sample(grammar, 1)):
        assert accepted_by_llguidance(lark, each) == accepts(grammar, each)


_BYTES = LLTokenizer("byte")


def accepted_by_llguidance(lark: str, text: str) -> bool:
    matcher = LLMatcher(_BYTES, lark, log_level=0)
    assert matcher.get_error() == ""
    tokens = list(text.encode())
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


@given(st.text('ro0t_- :=|"[](){}*+?.,\\x41\n#a^', max_size=30).map(lambda text: f"root ::= {text}"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        grammar = parse_ebnf(text)
    except GuideError:
        return
    assert accepts(grammar, sample(grammar, 0))
