"""Random grammars over a few characters for property tests: small, never left-recursive, and every rule can end."""

from __future__ import annotations

from hypothesis import strategies as st

from server.chat.grammar.character_sets import class_of, complement
from server.chat.grammar.expressions import (
    EMPTY,
    ROOT,
    Choice,
    Expression,
    Grammar,
    Literal,
    Reference,
    Repeat,
    Sequence,
    characters,
)

LETTERS = 'ab"\\[]^-é\n'
_COUNTS = [(0, None), (1, None), (0, 1), (2, None), (0, 2), (2, 2), (1, 3)]


def _classes() -> st.SearchStrategy[Expression]:
    sets = st.text(LETTERS, min_size=1, max_size=4).map(lambda letters: characters(letters).ranges)
    return st.one_of(sets.map(class_of), sets.map(lambda ranges: class_of(complement(ranges))))


def expressions(*names: str) -> st.SearchStrategy[Expression]:
    """Expressions that may refer to rules of these names."""
    leaves: st.SearchStrategy[Expression] = st.one_of(
        st.builds(Literal, st.text(LETTERS, max_size=3)), _classes(), st.sampled_from([EMPTY, *map(Reference, names)])
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda parts: Sequence(tuple(parts)), st.lists(inner, max_size=3)),
            st.builds(lambda options: Choice(tuple(options)), st.lists(inner, min_size=1, max_size=3)),
            st.builds(lambda item, counts: Repeat(item, *counts), inner, st.sampled_from(_COUNTS)),
        ),
        max_leaves=6,
    )


@st.composite
def grammars(draw: st.DrawFn) -> Grammar:
    """`root`, two rules that it may use, and a recursive one with brackets around what it repeats."""
    nested = Choice((EMPTY, Sequence((Literal("a"), Reference("nested"), draw(expressions("last"))))))
    return Grammar(
        {
            ROOT: draw(expressions("middle", "last", "nested")),
            "middle": draw(expressions("last", "nested")),
            "nested": nested,
            "last": draw(expressions()),
        }
    )
