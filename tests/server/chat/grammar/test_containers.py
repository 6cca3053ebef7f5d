"""Objects and arrays made of the grammars of their parts, against counting out what is allowed."""

from __future__ import annotations

import itertools
import json

import pytest

from server.chat.grammar.containers import Member, any_key, array_expression, object_expression
from server.chat.grammar.expressions import Expression, Grammar, Literal, Reference
from server.chat.grammar.json_values import RULES
from tests.grammar_tools import accepts, sample


class Rules:
    """Makes everything that is shared a rule."""

    def __init__(self) -> None:
        self.rules: dict[str, Expression] = {}

    def share(self, expression: Expression) -> Expression:
        name = f"part-{len(self.rules)}"
        self.rules[name] = expression
        return Reference(name)

    def grammar(self, start: Expression) -> Grammar:
        return Grammar({**RULES, **self.rules, "root": start})


ONE = Literal("1")
EXTRA = Literal('"x": 0')


@pytest.mark.parametrize("required", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("most_extra", [0, 2, None])
@pytest.mark.parametrize("may_be_empty", [False, True])
def test_objects(required: tuple[bool, ...], most_extra: int | None, may_be_empty: bool) -> None:
    members = [Member(name=name, value=ONE, required=each) for name, each in zip("abc", required, strict=True)]
    made = Rules()
    start = object_expression(
        members,
        extra=None if most_extra == 0 else EXTRA,
        most_extra=most_extra,
        may_be_empty=may_be_empty,
        share=made.share,
    )
    grammar = made.grammar(start)
    for written in itertools.product([False, True], repeat=3):
        for count in range(4):
            pairs = [f'"{name}": 1' for name, each in zip("abc", written, strict=True) if each] + ['"x": 0'] * count
            right = all(each or not needed for each, needed in zip(written, required, strict=True))
            right = right and (most_extra is None or count <= most_extra) and (bool(pairs) or may_be_empty)
            assert accepts(grammar, "{" + ", ".join(pairs) + "}") == right
    assert not accepts(grammar, '{"b": 1, "a": 1}')


def test_object_without_members() -> None:
    start = object_expression([], extra=None, most_extra=None, may_be_empty=True, share=Rules().share)
    assert start == Literal("{}")


@pytest.mark.parametrize("prefix", [0, 1, 3, 8])
@pytest.mark.parametrize("has_items", [False, True])
@pytest.mark.parametrize(("least", "most"), [(0, None), (0, 0), (0, 1), (1, 1), (2, None), (2, 4), (3, 3)])
def test_arrays(prefix: int, has_items: bool, least: int, most: int | None) -> None:
    made = Rules()
    first = [Literal(str(index)) for index in range(prefix)]
    if least > prefix and not has_items:
        return
    start = array_expression(first, Literal("i") if has_items else None, least=least, most=most, share=made.share)
    grammar = made.grammar(start)
    for count in range(10):
        items = [str(index) if index < prefix else "i" for index in range(count)]
        right = least <= count and (most is None or count <= most) and (has_items or count <= prefix)
        assert accepts(grammar, "[" + ", ".join(items) + "]") == right


@pytest.mark.parametrize(
    "names",
    [
        ["a"],
        [""],
        ["a", "ab", "abc", "b"],
        ["name", "names", "nam", ""],
        ['q"', "back\\slash", "line\n", "é", "😀x"],
        ["x" * 200, "x" * 100],
    ],
)
def test_keys_but_some(names: list[str]) -> None:
    made = Rules()
    grammar = made.grammar(any_key(but=names, share=made.share))
    others = [*("zz", "a b", "é!", "nä"), *(name[:-1] + "%" for name in names if name.isalpha() and len(name) < 60)]
    assert [each for each in others if not accepts(grammar, json.dumps(each, ensure_ascii=False))] == []
    assert [each for each in names if accepts(grammar, json.dumps(each, ensure_ascii=False))] == []
    assert {json.loads(sample(grammar, seed)) for seed in range(8)}.isdisjoint(names)
    if "" not in names:
        assert accepts(grammar, '""')


def test_keys_but_many_stay_small() -> None:
    made = Rules()
    names = [f"{index * 7919:09}" * 8 for index in range(2_000)]
    grammar = made.grammar(any_key(but=names, share=made.share))
    assert len(made.rules) < 500
    assert not accepts(grammar, json.dumps(names[7]))
    assert accepts(grammar, '"x"')
