"""Rules that can't be used."""

from __future__ import annotations

import pytest

from server.chat.grammar.expressions import GuideError, Literal, Reference, Rules, choice, optional, sequence
from server.chat.grammar.rule_checks import check_rules

A, B, X = Reference("a"), Reference("b"), Literal("x")


@pytest.mark.parametrize(
    "rules",
    [
        {"a": sequence(X, optional(A))},
        {"a": choice(sequence(X, A), X)},
        {"a": choice(B, X), "b": sequence(X, A)},
        {"a": Reference("json-value")},
        {f"r{each}": sequence(X, Reference(f"r{each + 1}")) for each in range(5_000)} | {"r5000": X},
    ],
)
def test_sound(rules: Rules) -> None:
    check_rules(rules, {})


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"a": A}, "leads back to itself"),
        ({"a": choice(X, B), "b": choice(sequence(X, X), A)}, "leads back to itself"),
        ({"a": sequence(X, A)}, "without end"),
        ({"a": choice(sequence(X, A), sequence(X, B)), "b": sequence(X, A)}, "without end"),
    ],
)
def test_unsound(rules: Rules, words: str) -> None:
    with pytest.raises(GuideError, match=words) as caught:
        check_rules(rules, {name: f"/{name}" for name in rules})
    assert caught.value.place in {"/a", "/b"}
