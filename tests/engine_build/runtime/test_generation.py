"""How a guided request ends. What it has in common with others is tested through the scheduler."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine_build.llama_cpp.runtime.generation import Event, Generation, Tokens
from engine_build.llama_cpp.runtime.guided import GuideText
from engine_build.llama_cpp.runtime.guides import Guides
from engine_build.llama_cpp.runtime.requests import GenerationRequest
from engine_build.llama_cpp.runtime.sampling import SamplingError

from .guide_samples import END_ID, TOKENS, TURN_ID

GUIDES = Guides(TOKENS)


def run(wanted: list[int | str], guide: str, **values: Any) -> tuple[str, list[Event]]:
    """Generate with a model that wants these ids one after another; the text, and what was handed out."""
    request = GenerationRequest(prompt=(1,), max_new_tokens=20, end_id=END_ID, **values)
    text = GuideText(kind="ebnf_grammar", text=guide)
    request = replace(request, guide=GUIDES.start(text, end_id=request.end_id, stop_words=request.stop_words))
    events: list[Event] = []
    generation = Generation(request, events.append, request_id="", vocabulary_size=len(TOKENS))
    for each in wanted:
        logits = np.linspace(1, 0, len(TOKENS), dtype=np.float32)
        logits[ord(each) if isinstance(each, str) else each] = 9
        generation.accept(logits)
        if generation.ended:
            break
    ids = [token for event in events if isinstance(event, Tokens) for token in event.ids]
    return b"".join(TOKENS[token] for token in ids).decode(), events


@pytest.mark.parametrize(
    ("wanted", "guide", "values", "text", "last_is_empty"),
    [
        (["a", "b"], 'root ::= "ab"', {}, "ab", False),  # complete: no step more for the end
        (["x", "x"], 'root ::= "ab"', {}, "ab", False),
        ([END_ID, "b"], 'root ::= "ab"', {}, "ab", False),
        (["a", END_ID], 'root ::= "a" "b"?', {}, "a", True),
        (["a", TURN_ID], 'root ::= "a" "b"?', {"stop_words": ((TURN_ID,),)}, "a", False),
        (["a", END_ID, "b"], 'root ::= "a" "b"?', {"min_tokens": 2}, "ab", False),
        (["a"], 'root ::= ""', {}, "", True),
        (["a"], 'root ::= ""', {"min_tokens": 5}, "", True),
        (["a", "b"], 'root ::= "a" "b"?', {"bad_words": ((ord("b"),),), "min_tokens": 5}, "a", True),
        (["a", "b", "c"], "root ::= [a-z]*", {"stop_words": ((ord("b"),),)}, "ab", False),
    ],
)
def test_ends(wanted: list[int | str], guide: str, values: dict[str, Any], text: str, last_is_empty: bool) -> None:
    output, events = run(wanted, guide, **values)
    assert output == text
    last = events[-1]
    assert isinstance(last, Tokens)
    assert last.final
    assert (not last.ids) is last_is_empty or last.ids == (TURN_ID,)


def test_goes_on_while_the_guide_does() -> None:
    output, events = run(["a"] * 5, "root ::= [a-z]*")
    assert output == "aaaaa"
    assert not any(isinstance(event, Tokens) and event.final for event in events)


def test_fails_where_the_guide_leaves_nothing() -> None:
    with pytest.raises(SamplingError, match="all are banned or refused"):
        run(["a", "b"], 'root ::= "a" [^\\x00-\\U0010FFFF]')
