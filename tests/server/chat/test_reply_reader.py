"""Text or calls, decided by the first characters, and never both."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.model import AnyText, FunctionTool, ReplyShape, Text, TextWithoutCalls, ToolCall, ToolCallDelta
from server.chat.reply_reader import Piece, ReplyReader
from server.chat.tool_text import calls_text
from server.errors import EngineFailed

FUNCTION = FunctionTool(name="f", description="", parameters='{"type": "object"}')
TEXT = ReplyShape(text=AnyText())
EITHER = ReplyShape(text=TextWithoutCalls(), functions=(FUNCTION,))
CALLS = ReplyShape(text=None, functions=(FUNCTION,))
CALL = ToolCall(id="id", name="f", arguments='{"a": "stop"}')
CALL_TEXT = calls_text([CALL])


def read(shape: ReplyShape, pieces: list[str], *, stops: tuple[str, ...] = (), cut: bool = False) -> list[Piece]:
    reader = ReplyReader(shape, stops=stops, new_id=lambda: "id")
    found = []
    for piece in pieces:
        found += reader.feed(piece)
        if reader.stop_sequence is not None:
            break
    return [*found, *reader.finish(cut=cut)]


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, Text))


def arguments_of(pieces: list[Piece]) -> str:
    return "".join(piece.arguments for piece in pieces if isinstance(piece, ToolCallDelta))


@pytest.mark.parametrize(
    ("shape", "answer", "cut", "text", "arguments"),
    [
        pytest.param(TEXT, "Hello", False, "Hello", "", id="text"),
        pytest.param(TEXT, CALL_TEXT, False, CALL_TEXT, "", id="no_tools_no_calls"),
        pytest.param(EITHER, "Hello", False, "Hello", "", id="either_text"),
        pytest.param(EITHER, CALL_TEXT, False, "", CALL.arguments, id="either_call"),
        pytest.param(EITHER, "<tool", False, "<tool", "", id="a_text_that_began_like_a_call"),
        pytest.param(EITHER, "<tool", True, "", "", id="the_cut_beginning_of_a_call_is_not_shown"),
        pytest.param(EITHER, "<toolbox>", True, "<toolbox>", "", id="not_a_call_after_all"),
        pytest.param(EITHER, "", False, "", "", id="nothing"),
        pytest.param(CALLS, CALL_TEXT, False, "", CALL.arguments, id="call"),
        pytest.param(CALLS, CALL_TEXT[: CALL_TEXT.index('{"a') + 3], True, "", '{"a', id="cut_call"),
    ],
)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "by_character"])
def test_answers(shape: ReplyShape, answer: str, cut: bool, text: str, arguments: str, whole: bool) -> None:
    pieces = read(shape, [answer] if whole else list(answer), cut=cut)
    assert (text_of(pieces), arguments_of(pieces)) == (text, arguments)


@pytest.mark.parametrize("shape", [EITHER, CALLS], ids=["either", "calls"])
def test_stop_strings_do_not_cut_calls(shape: ReplyShape) -> None:
    assert arguments_of(read(shape, [CALL_TEXT], stops=("stop", "<"))) == CALL.arguments


def test_stop_strings_cut_text_beside_tools() -> None:
    assert text_of(read(EITHER, ["Please st", "op now"], stops=("stop",))) == "Please "


def test_a_stop_string_in_a_held_back_beginning() -> None:
    assert text_of(read(EITHER, ["<to"], stops=("to",))) == "<"


def test_text_where_only_calls_may_be_is_the_engines_failure() -> None:
    with pytest.raises(EngineFailed):
        read(CALLS, ["Sure!"])


@given(st.lists(st.sampled_from(["<", "tool", "_call", ">", "\n", "{", "a", "stop"]), max_size=12))
def test_text_is_never_lost(words: list[str]) -> None:
    """Whatever is no call comes out as text, in the same order, up to what a call's mark would be."""
    answer = "".join(words)
    if not answer.startswith("<tool_call>"):
        assert text_of(read(EITHER, words)) == answer
