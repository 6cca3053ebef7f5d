"""EBNF to Lark: what each notation means, and what is refused where."""

from __future__ import annotations

import pytest

from engine_build.llama_cpp.runtime.ebnf import MOST_PARTS, lark_from_ebnf
from engine_build.llama_cpp.runtime.errors import RequestError
from engine_build.llama_cpp.runtime.guided import GuideText
from engine_build.llama_cpp.runtime.guides import Guides

from .guide_samples import TOKENS, reads


@pytest.fixture(scope="module")
def guides() -> Guides:
    return Guides(TOKENS)


MEANINGS: list[tuple[str, list[str], list[str]]] = [
    ('root ::= "ab"', ["ab"], ["", "a", "abc", "b"]),
    ('root ::= ""', [""], ["a"]),
    ('root::="a"|"b"#c\n|"c"', ["a", "b", "c"], ["", "#", "ab"]),
    ('# first\nroot ::= x "!" # last\nx ::= "a"\n\n\t| "b"', ["a!", "b!"], ["a", "!"]),
    ('root ::= ("a" | "b" "c")\n  "d"', ["ad", "bcd"], ["bd", "acd", "abcd"]),
    ('root ::= "ab"*', ["", "ab", "abab"], ["a", "aba", "abb"]),
    ('root ::= "ab"+ "c"?', ["ab", "ababc"], ["", "c"]),
    ('root ::= "a"{2}', ["aa"], ["a", "aaa"]),
    ('root ::= "ab"{ 1 , 2 }', ["ab", "abab"], ["", "ababab"]),
    ('root ::= "a"{2,}', ["aa", "aaaaa"], ["", "a"]),
    ('root ::= "a"{0,} "b"{0,1}', ["", "aaa", "b", "ab"], ["bb"]),
    ('root ::= "ab"{0} ("c" | "d"){0,0} "e"', ["e"], ["abe", "ce"]),
    ('root ::= ""* ("" | "a")+ "b"', ["b", "aab"], ["", "a"]),
    ("root ::= ([a-c]{2})*", ["", "ab", "cabc"], ["a", "ad"]),
    ("root ::= [a-cx-]+", ["abcx-"], ["d", "y"]),
    ("root ::= [-a]+", ["-a"], ["b"]),
    (r"root ::= [\]\\^\x41-\x43]+", ["]\\^ABC"], ["D", "["]),
    (r"root ::= [^\]a-c\n]", ["d", "é", "😀", "["], ["]", "a", "\n", "", "dd"]),
    (r'root ::= "\n\r\t\"\\\x41\u00e9\U0001F600é"', ['\n\r\t"\\Aé😀é'], ["n"]),
    (r"root ::= [\u00e0-\u00ff]+ [\U0001F600-\U0001F64F]?", ["éà", "é😀"], ["a", "😀", "é🚀"]),
    ('root ::= start\nstart ::= "a" root-2.b_C\nroot-2.b_C ::= "b" | start', ["ab", "aaab"], ["a", "b"]),
    ('root ::= "a" root | "b"', ["b", "aab"], ["a"]),
    ('root ::= "(" root ")" | ""', ["", "(())"], ["(", "(()"]),
    # A greedy lexer would refuse what only a shorter reading of the first part makes possible.
    ('root ::= ("a" | "ab") ("bd" | "bc")', ["abd", "abc", "abbc"], ["ab"]),
    ('root ::= [a-z]+ "end" "!"?', ["xend", "endend", "xendend!"], ["end", "x"]),
    ('root ::= "a"* "a" "b"? "b"', ["ab", "aabb"], ["b", "aa"]),
    ('root ::= (("a"*)*)*', ["", "aaaa"], ["b"]),
    ('unused ::= "x" | missing-not\nmissing-not ::= "y"\nroot ::= "a"', ["a"], ["x"]),
]


@pytest.mark.parametrize(("grammar", "taken", "refused"), MEANINGS)
def test_meaning(guides: Guides, grammar: str, taken: list[str], refused: list[str]) -> None:
    for text in (*taken, *refused):
        guide = guides.start(GuideText(kind="ebnf_grammar", text=grammar))
        assert reads(guide, text) is (text in taken), text


REFUSED = [
    ("", 1, 1, "the grammar has no rule root"),
    ('x ::= "a"', 1, 10, "the grammar has no rule root"),
    ("root", 1, 1, "expected a rule: its name, then ::="),
    ('"a"', 1, 1, "expected a rule"),
    ("root ::=", 1, 9, "an alternative is missing here"),
    ('root ::= "a" |\n', 2, 1, "an alternative is missing here"),
    ('root ::= | "a"', 1, 10, "an alternative is missing here"),
    ("root ::= ()", 1, 11, "an alternative is missing here"),
    ('root ::= "a"\n  ("b"', 2, 3, "this ( is not closed"),
    ('root ::= ("a"\nx ::= "b"', 1, 10, "this ( is not closed"),
    ('root ::= "a")', 1, 13, ") without a ( before it"),
    ('root ::= "a\n"', 1, 10, 'this " has no " after it'),
    ("root ::= [a", 1, 10, "this [ has no ] after it"),
    ("root ::= []", 1, 10, "[] names no character"),
    ("root ::= [^]", 1, 10, "[^] names no character"),
    ("root ::= [z-a]", 1, 10, "the range 'z' to 'a' goes backwards"),
    ('root ::= "a"\n\n  x', 3, 3, "there is no rule x"),
    ('root ::= "a"\nroot ::= "b"', 2, 1, "there is a rule root already"),
    ("root ::= *", 1, 10, "here is nothing to repeat"),
    ('root ::= "a"**', 1, 14, "put parentheses around what already is a repetition"),
    ('root ::= "a"{3,2}', 1, 13, "{3,2} goes backwards"),
    ('root ::= "a"{,2}', 1, 13, "this { has no } after it"),
    ('root ::= "a"{1000001}', 1, 13, "more than 1000000 times"),
    ('root ::= "a"{0,' + "9" * 5000 + "}", 1, 13, "{0,999"),
    (r'root ::= "\q"', 1, 10, r"unknown escape \q"),
    (r'root ::= "\x4"', 1, 10, r"unknown escape \x"),
    (r'root ::= "\uD800"', 1, 10, r"\uD800 is no character"),
    (r"root ::= [\U00110000]", 1, 10, r"\U00110000 is no character"),
    ("root ::= .", 1, 10, "unexpected '.'"),
    ('root := "a"', 1, 1, "expected a rule"),
    ('root ::= "a" é', 1, 14, r"unexpected '\xe9'"),
    ('root ::= root "a" | "b"', 1, 1, "rule root can begin with itself"),
    ('root ::= a\na ::= "x"? ("" b) "y"\nb ::= a', 2, 1, "rule a can begin with itself"),
    ('root ::= "a" x\nx ::= "b"* x', 2, 1, "rule x can begin with itself"),
    ("root ::= " + "(" * (MOST_PARTS + 1), 1, 10 + MOST_PARTS - 1, f"more than {MOST_PARTS} rules"),
    ("root ::= " + "x" * 100_000, 1, 10, "there is no rule xxx"),
]


@pytest.mark.parametrize(("grammar", "line", "column", "problem"), REFUSED)
def test_refused(grammar: str, line: int, column: int, problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        lark_from_ebnf(grammar)
    assert str(caught.value).startswith(f"guided_decoding_guide, line {line}, column {column}: ")
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 300


def test_same_characters_share_a_rule() -> None:
    lark = lark_from_ebnf(r'root ::= "aba" [a-b] "\x61" [a-b]')
    assert lark.splitlines() == [
        "start: c0 c1 c0 c2 c0 c2",
        r"c0: /[\x{61}]/",
        r"c1: /[\x{62}]/",
        r"c2: /[\x{61}-\x{62}]/",
    ]


def test_long_chains_of_rules_are_checked_without_recursion() -> None:
    rules = [f"r{number} ::= r{number + 1}" for number in range(5_000)]
    assert lark_from_ebnf("\n".join(["root ::= r0", *rules, 'r5000 ::= "" | "a"']))
