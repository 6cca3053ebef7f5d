"""Regular expressions: what they derive matches in Python's eyes too, whether it reads \\d as ASCII or as Unicode."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.grammar.expressions import ROOT, Expression, Grammar, GuideError, Literal, Repeat, characters
from server.chat.grammar.limits import check_grammar, expanded_size
from server.chat.grammar.regex import json_string_content, search_expression, whole_expression
from tests.grammar_tools import accepts, sample


def derives(expression: Expression, text: str) -> bool:
    return accepts(Grammar({ROOT: expression}), text)


WHOLE = [
    ("", [""], ["a"]),
    ("abc", ["abc"], ["", "ab", "abcd", "xabc"]),
    ("a|bc|", ["a", "bc", ""], ["abc", "b"]),
    ("^abc$", ["abc"], ["abc\n", "^abc$"]),
    (r"\Aabc\Z", ["abc"], ["abc\n"]),
    ("^(a|b)$", ["a", "b"], ["ab", ""]),
    ("(^a|b$)", ["a", "b"], ["ab"]),
    ("a?b*c+", ["c", "abbc", "bcc"], ["ab", "aac"]),
    ("a*?b+?c??", ["b", "aabbc"], ["ac"]),
    ("a{2}b{1,}c{0,2}d{,1}", ["aab", "aabbccd"], ["ab", "aabccc", "aabdd"]),
    ("a{0}b", ["b"], ["ab"]),
    ("x{}|y{a}|z{1,a}", ["x{}", "y{a}", "z{1,a}"], ["x", "y"]),
    ("(a)(?:b)(?P<name>c)(?#comment)", ["abc"], ["ab"]),
    (".", ["a", "é", "😀", "\r"], ["\n", "", "ab"]),
    (r"[a-c\-x]", ["a", "b", "-", "x"], ["d", "\\"]),
    ("[^a-c]", ["d", "\n", "😀"], ["a"]),
    ("[]a]", ["]", "a"], ["[]a]"]),
    ("[^]a]", ["b"], ["]", "a"]),
    (r"\d\D", ["1a", "1é", "1 "], ["a1", "11", "٣a", "1٣"]),
    (r"\w\W", ["_ ", "a-"], ["é ", "ab", "aé"]),
    (r"\s\S", ["\tx", " é"], ["\u00a0x", "  ", " \u00a0", " \u2028"]),
    (r"[\d.]+", ["1.5"], ["٣"]),
    (r"[^\d]", ["a", "é"], ["1", "٣"]),
    (r"[^\w\s]", ["-"], ["é", " ", "a"]),
    (r"[^\W\d]", ["a", "_"], ["1", "é", "-"]),
    (r"\.\*\\\/\"\t\n\x41\u00e9\U0001F600\0", ['.*\\/"\t\nAé😀\0'], []),
    (r"\N{BULLET}", ["•"], []),
    ("(a*)*(b|)*", ["", "aab"], ["ba"]),
    ("(()|a)+$", ["", "aa"], ["b"]),
]


@pytest.mark.parametrize(("pattern", "texts", "others"), WHOLE)
def test_whole_texts(pattern: str, texts: list[str], others: list[str]) -> None:
    expression = whole_expression(pattern)
    check_grammar(Grammar({ROOT: expression}))
    assert [text for text in texts if not derives(expression, text)] == []
    assert [text for text in others if derives(expression, text)] == []


SEARCH = [
    ("b", ["b", "abc", "\nb\n"], ["", "ac"]),
    ("^b", ["b", "bc"], ["ab", ""]),
    ("b$", ["b", "ab"], ["bc", "b\n"]),
    ("^b$", ["b"], ["ab", "bc", "b\n"]),
    ("^a|b$", ["ax", "xb"], ["xax"]),
    ("^ab$|^ac$", ["ab", "ac"], ["xab", "abx", "ad"]),  # Python's parser moves the common ^a to the front
    ("ab$|ac", ["xab", "acx"], ["abx"]),
    ("(^a|b)c", ["ac", "xbc", "bcx"], ["xac"]),
    ("a(b|c$)", ["xabx", "xac"], ["acx"]),
    ("^(a|^b)(c$|d)$", ["ac", "bd"], ["xac", "acx", "bdx"]),
    ("", ["", "abc"], []),
    ("^", ["", "abc"], []),
    ("$", ["", "abc\n"], []),
    ("^$", [""], ["a", "\n"]),
    ("(^)a|b", ["a", "xb"], ["xa"]),
    ("a$|a$", ["xa"], ["ax"]),
    ("^$|^$", [""], ["a"]),
    ("a||b", ["", "c"], []),
]


@pytest.mark.parametrize(("pattern", "texts", "others"), SEARCH)
def test_texts_with_a_match(pattern: str, texts: list[str], others: list[str]) -> None:
    expression = search_expression(pattern)
    assert [text for text in texts if not derives(expression, text)] == []
    assert [text for text in others if derives(expression, text)] == []


REFUSED = [
    (r"(a)\1", "character 4", "backreferences"),
    (r"(?P<n>a)(?P=n)", "character 9", "backreferences"),
    ("x(?=a)", "character 2", "lookahead"),
    ("(?!a)b", "character 1", "lookahead"),
    ("(?<=a)b", "character 1", "lookbehind"),
    ("(?<!a)b", "character 1", "lookbehind"),
    (r"a\b", "character 2", "word boundaries"),
    (r"\Ba", "character 1", "word boundaries"),
    ("(?i)a", "character 1", "flags"),
    ("a(?i:b)", "character 2", "flags"),
    ("(?-i:b)", "character 1", "flags"),
    ("a(?x) b", "character 2", "flags"),
    ("a*+", "character 2", "possessive"),
    ("a{2}+", "character 2", "possessive"),
    ("(?>a)", "character 1", "atomic"),
    ("(a)?(?(1)b|c)", "character 5", "conditions"),
    ("(?<n>a)", "character 1", "(?P<name>"),
    ("a^b", "character 2", "^ and $"),
    ("a$b", "character 2", "^ and $"),
    ("(^a)*", "character 2", "^ and $"),
    ("a(^b|c)", "character 3", "^ and $"),
    ("()^a", "character 3", "^ and $"),
    ("^a$|^b$c$", "character 7", "^ and $"),
    ("(^a|^b)*", "", "^ and $"),
    ("[[a]", "character 1", "[["),
    ("x[a--b]", "character 2", "--"),
    ("[a&&b]", "character 1", "&&"),
    ("[a||b]", "character 1", "||"),
    ("a{10001}", "character 2", "more than 10,000"),
    ("a{1,99999999999999999999}", "character 2", "more than 10,000"),
    ("(a{1000}){1000}", "", "characters written out"),
    ("(" * 51 + ")" * 51, "character 51", "more than 50 deep"),
    ("a" * 10_001, "", "10,001 characters"),
    (r"\ud83d", "", "half a character"),
    (r"[\ud800-\udfff]", "character 1", "nothing would match"),
    (r"a[^\s\S]", "character 2", "nothing would match"),
    (r"[a][^\s\S]", "", "nothing would match"),
    ("(a", "character 1", "unterminated"),
    ("a)", "character 2", "unbalanced"),
    ("[a", "character 1", "unterminated"),
    ("*a", "character 1", "nothing to repeat"),
    ("a**", "character 3", "multiple repeat"),
    ("a{3,2}", "character 3", "min repeat"),
    ("[z-a]", "character 2", "bad character range"),
    (r"\p{L}", "character 1", "Unicode properties such as"),
    (r"a\P{Lu}", "character 2", "Unicode properties such as"),
    (r"a[\w\p{L}]", "character 2", "Unicode properties such as"),
    ("a\\", "character 2", "bad escape"),
]


@pytest.mark.parametrize("expression_of", [whole_expression, search_expression])
@pytest.mark.parametrize(("pattern", "place", "problem"), REFUSED, ids=[str(index) for index in range(len(REFUSED))])
def test_refused(expression_of: Callable[[str], Expression], pattern: str, place: str, problem: str) -> None:
    with pytest.raises(GuideError) as caught:
        expression_of(pattern)
    assert caught.value.place == place
    assert problem in caught.value.problem


HOSTILE = [
    "(" * 10_000,
    "(" * 5_000 + ")" * 5_000,
    "[" * 10_000,
    "(?:" * 3_333,
    "a|" * 5_000,
    "a*" * 5_000,
    "(a|b)" * 2_000,
    "(a*)*" * 2_000,
    "{" * 10_000,
    "(((a{0,9}){0,9}){0,9}){0,9}",
    r"\D" * 5_000,
    "[^\\d]" * 1_500,
    "(?#" * 3_000,
    "a{" + "9" * 9_990 + "}",
    "\\" * 9_999,
    "(?P<" + "!" * 9_000 + ">a)",
    "(" * 50 + "a*" + ")*" * 50,
    "\x00" * 10_000,
    "\ud800",
    "[a-z]{0,10000}" * 5,
]


@pytest.mark.parametrize("pattern", HOSTILE, ids=[str(index) for index in range(len(HOSTILE))])
def test_hostile_patterns_are_read_or_refused_quickly(pattern: str) -> None:
    start = time.process_time()
    for expression_of in (whole_expression, search_expression):
        try:
            size, limit = expanded_size(json_string_content(expression_of(pattern))), 500_000
        except GuideError as error:
            size, limit = len(str(error)), 400
        assert size < limit
    assert time.process_time() - start < 5  # far below a second


PIECES = [*"aab1_ -é٣\n", ".", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", "[ab]", "[^a]", r"[^\w-]", r"[\d\s]", "(?:)"]
PATTERNS = st.recursive(
    st.sampled_from(PIECES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: f"({'|'.join(options)})"),
        st.builds(lambda item, count: f"(?:{item}){count}", inner, st.sampled_from(["*", "+?", "?", "{2}", "{1,2}"])),
    ),
    max_leaves=6,
)
ANCHORED = st.builds("{}{}{}".format, st.sampled_from(["", "^"]), PATTERNS, st.sampled_from(["", r"\Z"]))
ALTERNATIVES = st.lists(ANCHORED, min_size=1, max_size=3).map("|".join)
TEXTS = st.text("ab1_ -\n\t", max_size=5)


@given(ALTERNATIVES, st.lists(TEXTS, max_size=5))
def test_same_as_python(pattern: str, texts: list[str]) -> None:
    whole, found = whole_expression(f"(?:{pattern})"), search_expression(pattern)
    for text in texts:
        assert derives(whole, text) == bool(re.fullmatch(pattern, text)), text
        assert derives(found, text) == bool(re.search(pattern, text)), text


@given(ALTERNATIVES)
def test_what_is_derived_matches_in_every_dialect(pattern: str) -> None:
    for flags in (0, re.ASCII):
        for seed in range(5):
            assert re.fullmatch(pattern, sample(Grammar({ROOT: whole_expression(pattern)}), seed), flags)
            assert re.search(pattern, sample(Grammar({ROOT: search_expression(pattern)}), seed), flags)


@given(st.text(r"ab(|)[]^$*+?{}1,\d.-:P<n>&~#i=!" + '"', max_size=12))
def test_any_text_is_read_as_python_reads_it_or_refused(pattern: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what Python warns of is refused before it can
        try:
            expression = whole_expression(pattern)
        except GuideError:
            return
    assert re.fullmatch(pattern, sample(Grammar({ROOT: expression}), 0))


JSON = [
    ("plain é😀/", "plain é😀/"),
    ('say "hi"', r"say \"hi\""),
    ("back\\slash", r"back\\slash"),
    ("\b\f\n\r\t", r"\b\f\n\r\t"),
]


@pytest.mark.parametrize(("text", "written"), JSON)
def test_literals_in_json(text: str, written: str) -> None:
    assert json_string_content(Literal(text)) == Literal(written)
    assert json.loads(f'"{written}"') == text


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        (Literal("a\x00"), "U+0000"),
        (Literal("\x7f"), "U+007F"),
        (characters("\x01\x1f"), "nothing would match"),
    ],
)
def test_impossible_in_json(expression: Expression, problem: str) -> None:
    with pytest.raises(GuideError, match=re.escape(problem)):
        json_string_content(expression)


@pytest.mark.parametrize(
    ("pattern", "texts", "others"),
    [
        (".", ["a", r"\"", r"\\", r"\t", "😀", "/"], ["\\", '"', r"\n", "\n", r"\/", r"\u0041", "\x7f"]),
        ("[\\n\\x00]", [r"\n"], ["\n", "\x00", r"\u0000"]),
        (r"[^\\]", [r"\"", r"\n", "a"], [r"\\", "\\"]),
        ('"+', [r"\"", r"\"\""], ['"']),
    ],
)
def test_sets_in_json(pattern: str, texts: list[str], others: list[str]) -> None:
    expression = json_string_content(whole_expression(pattern))
    assert [text for text in texts if not derives(expression, text)] == []
    assert [text for text in others if derives(expression, text)] == []


@given(ALTERNATIVES, st.lists(TEXTS, max_size=5))
def test_json_strings_hold_the_same_texts(pattern: str, texts: list[str]) -> None:
    expression = search_expression(pattern)
    content = json_string_content(expression)
    for seed in range(5):
        assert re.search(pattern, json.loads(f'"{sample(Grammar({ROOT: content}), seed)}"'))
    for text in texts:
        assert derives(content, json.dumps(text, ensure_ascii=False)[1:-1]) == derives(expression, text)


def test_repeats_stay_repeats() -> None:
    assert whole_expression("[a-z]{3,9000}") == Repeat(characters("abcdefghijklmnopqrstuvwxyz"), 3, 9_000)
