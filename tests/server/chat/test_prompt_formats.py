"""What each format writes, segment by segment."""

from __future__ import annotations

import pytest

from server.chat.model import Conversation, Message, Role
from server.chat.prompt_formats import CHATML, LLAMA3, PROMPT_FORMATS, PromptFormat, Segment, Special, Text

BEGIN, HEADER, HEADER_END, EOT = (
    Special(f"<|{name}|>") for name in ("begin_of_text", "start_header_id", "end_header_id", "eot_id")
)
IM_START, IM_END = Special("<|im_start|>"), Special("<|im_end|>")


def conversation(*turns: tuple[str, str]) -> Conversation:
    return Conversation(messages=tuple(Message(role=Role(role), content=content) for role, content in turns))


def llama3_header(role: str) -> tuple[Segment, ...]:
    return HEADER, Text(role), HEADER_END, Text("\n\n")


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        pytest.param(
            [("user", "Hi")],
            (BEGIN, *llama3_header("user"), Text("Hi"), EOT, *llama3_header("assistant")),
            id="one_question",
        ),
        pytest.param(
            [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")],
            (
                BEGIN,
                *(*llama3_header("system"), Text("Be kind."), EOT),
                *(*llama3_header("user"), Text("Hi"), EOT),
                *(*llama3_header("assistant"), Text("Hello"), EOT),
                *(*llama3_header("user"), Text("Bye"), EOT),
                *llama3_header("assistant"),
            ),
            id="every_role",
        ),
        pytest.param(
            [("user", " \n\tHi  there \r\n")],
            (BEGIN, *llama3_header("user"), Text("Hi  there"), EOT, *llama3_header("assistant")),
            id="content_is_stripped",
        ),
        pytest.param(
            [("user", "Hi"), ("assistant", "")],
            (
                BEGIN,
                *(*llama3_header("user"), Text("Hi"), EOT),
                *(*llama3_header("assistant"), Text(""), EOT),
                *llama3_header("assistant"),
            ),
            id="empty_turn_stays",
        ),
    ],
)
def test_llama3(turns: list[tuple[str, str]], expected: tuple[Segment, ...]) -> None:
    assert LLAMA3.segments(conversation(*turns), default_system_prompt="") == expected


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        pytest.param(
            [("user", "Hi")],
            (IM_START, Text("user\nHi"), IM_END, Text("\n"), IM_START, Text("assistant\n")),
            id="texts_are_joined",
        ),
        pytest.param(
            [("system", "S"), ("user", " Hi ")],
            (
                *(IM_START, Text("system\nS"), IM_END, Text("\n")),
                *(IM_START, Text("user\n Hi "), IM_END, Text("\n")),
                *(IM_START, Text("assistant\n")),
            ),
            id="content_is_kept_as_it_is",
        ),
    ],
)
def test_chatml(turns: list[tuple[str, str]], expected: tuple[Segment, ...]) -> None:
    assert CHATML.segments(conversation(*turns), default_system_prompt="") == expected


@pytest.mark.parametrize("prompt_format", PROMPT_FORMATS.values(), ids=PROMPT_FORMATS)
@pytest.mark.parametrize(
    ("turns", "same_as"),
    [
        pytest.param([("user", "Hi")], [("system", "Default."), ("user", "Hi")], id="stands_in"),
        pytest.param([("system", "Own."), ("user", "Hi")], [("system", "Own."), ("user", "Hi")], id="own_one_wins"),
        pytest.param([("system", ""), ("user", "Hi")], [("system", ""), ("user", "Hi")], id="empty_own_one_wins"),
        pytest.param(
            [("user", "Hi"), ("system", "Late.")],
            [("system", "Default."), ("user", "Hi"), ("system", "Late.")],
            id="late_system_message",
        ),
    ],
)
def test_default_system_prompt(
    prompt_format: PromptFormat, turns: list[tuple[str, str]], same_as: list[tuple[str, str]]
) -> None:
    assert prompt_format.segments(conversation(*turns), default_system_prompt="Default.") == prompt_format.segments(
        conversation(*same_as), default_system_prompt=""
    )


def test_names_and_control_tokens() -> None:
    assert list(PROMPT_FORMATS) == ["llama3", "chatml"]
    assert LLAMA3.special_tokens == {each.token for each in (BEGIN, HEADER, HEADER_END, EOT)}
    assert CHATML.special_tokens == {"<|im_start|>", "<|im_end|>"}
