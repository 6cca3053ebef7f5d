"""Requests are checked whole: one violation for each wrong field, with its path."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from llamarpc.v1 import chat_pb2
from llamarpc.v1.text_generation_pb2 import CountTokensRequest, GenerateRequest

from server.check import TextLimits, check_count_tokens_request, check_generate_request, is_valid_request_id
from server.errors import InvalidRequest

LIMIT = 100
LIMITS = TextLimits(field_characters=LIMIT, prompt_characters=2 * LIMIT)
USER, SYSTEM, ASSISTANT, TOOL = (
    chat_pb2.ROLE_USER,
    chat_pb2.ROLE_SYSTEM,
    chat_pb2.ROLE_ASSISTANT,
    chat_pb2.ROLE_TOOL,
)


def message(content: str = "Hi", role: Any = USER, **fields: Any) -> chat_pb2.Message:
    return chat_pb2.Message(role=role, content=content, **fields)


def violations_of(request: GenerateRequest) -> list[tuple[str, str]]:
    try:
        check_generate_request(request, LIMITS)
    except InvalidRequest as error:
        return [(each.field, each.description) for each in error.violations]
    return []


VALID = [
    pytest.param({"prompt": "Hi"}, id="prompt"),
    pytest.param({"prompt": " Hi\n"}, id="prompt_with_white_space"),
    pytest.param({"prompt": "x" * LIMIT}, id="longest_prompt"),
    pytest.param({"prompt": "é" * LIMIT}, id="characters_not_bytes"),
    pytest.param({"prompt": "Hi", "raw": True}, id="raw_prompt"),
    pytest.param({"prompt": "<|eot_id|><|im_end|>"}, id="control_tokens_are_text"),
    pytest.param({"messages": [message()]}, id="message"),
    pytest.param({"messages": [message("", SYSTEM), message(), message("", ASSISTANT)]}, id="some_empty_messages"),
    pytest.param({"messages": [message("  ", USER), message("x", USER)]}, id="one_user_message_has_text"),
    pytest.param({"messages": [message("Hi", SYSTEM)], "raw": True}, id="raw_messages_need_no_user"),
    pytest.param({"messages": [message(name="Ann")]}, id="name"),
    pytest.param({"prompt": "Hi", "stop": ["s"] * 8}, id="eight_stops"),
    pytest.param({"prompt": "Hi", "stop": ["s" * 1_024, "\n", " "]}, id="longest_stop_and_white_space"),
    pytest.param({"prompt": "Hi", "request_id": "!" + "~" * 127}, id="longest_request_id"),
    pytest.param({"prompt": "Hi", "response_format": chat_pb2.ResponseFormat()}, id="no_format"),
    pytest.param(
        {"prompt": "Hi", "response_format": chat_pb2.ResponseFormat(text=chat_pb2.TextFormat())}, id="text_format"
    ),
]


@pytest.mark.parametrize("fields", VALID)
def test_valid(fields: dict[str, Any]) -> None:
    check_generate_request(GenerateRequest(**fields), LIMITS)


WRONG = [
    pytest.param({}, {"prompt": "neither is set"}, id="nothing"),
    pytest.param({"prompt": ""}, {"prompt": "more than white space"}, id="empty_prompt"),
    pytest.param({"prompt": " \n\t\u3000"}, {"prompt": "more than white space"}, id="blank_prompt"),
    pytest.param({"prompt": "", "raw": True}, {"prompt": "more than white space"}, id="empty_raw_prompt"),
    pytest.param({"prompt": "x" * 101}, {"prompt": "has 101 characters, at most 100"}, id="long_prompt"),
    pytest.param({"prompt": " " * 101}, {"prompt": ""}, id="long_blank_prompt_is_one_wrong_field"),
    pytest.param({"prompt": "Hi", "messages": [message()]}, {"messages": "not both"}, id="both"),
    pytest.param({"prompt": "", "messages": [message()]}, {"messages": "not both"}, id="both_one_empty"),
    pytest.param({"prompt": "Hi", "messages": [message("")]}, {"messages": "not both"}, id="both_other_empty"),
    pytest.param({"messages": [message("")]}, {"messages": "no message of the user"}, id="empty_message"),
    pytest.param({"messages": [message(" \n")]}, {"messages": "no message of the user"}, id="blank_message"),
    pytest.param({"messages": [message("Hi", SYSTEM)]}, {"messages": "no message of the user"}, id="no_user"),
    pytest.param(
        {"messages": [message("Hi", ASSISTANT), message("", USER)]}, {"messages": "no message of the user"}, id="mute"
    ),
    pytest.param({"messages": [message("", SYSTEM)], "raw": True}, {"messages": "no message"}, id="empty_raw_messages"),
    pytest.param({"messages": [message(), message("x", 0)]}, {"messages[1].role": "ROLE_USER"}, id="role_unspecified"),
    pytest.param({"messages": [message(), message("x", 99)]}, {"messages[1].role": "ROLE_USER"}, id="role_unknown"),
    pytest.param({"messages": [message("x", 0)], "raw": True}, {"messages[0].role": "ROLE_USER"}, id="raw_role"),
    pytest.param(
        {"messages": [message(), message(), message("x" * 101)]},
        {"messages[2].content": "has 101 characters"},
        id="long_content",
    ),
    pytest.param({"messages": [message(name="n" * 101)]}, {"messages[0].name": "has 101 characters"}, id="long_name"),
    pytest.param({"prompt": "Hi", "stop": ["s"] * 9}, {"stop": "has 9 strings, at most 8"}, id="nine_stops"),
    pytest.param({"prompt": "Hi", "stop": ["s", ""]}, {"stop[1]": "must not be empty"}, id="empty_stop"),
    pytest.param({"prompt": "Hi", "stop": ["s" * 1_025]}, {"stop[0]": "has 1,025 characters"}, id="long_stop"),
    pytest.param({"prompt": "Hi", "request_id": "x" * 129}, {"request_id": "at most 128"}, id="long_request_id"),
    pytest.param({"prompt": "Hi", "request_id": "a b"}, {"request_id": "without spaces"}, id="space_in_request_id"),
    pytest.param({"prompt": "Hi", "request_id": "a\r\nb: c"}, {"request_id": "visible"}, id="header_in_request_id"),
    pytest.param({"prompt": "Hi", "request_id": "é"}, {"request_id": "ASCII"}, id="request_id_not_ascii"),
    pytest.param(
        {"messages": [message("x" * 101, 0)], "temperature": 6, "stop": [""], "request_id": " ", "top_k": 0},
        {
            "messages": "no message of the user",
            "messages[0].role": "ROLE_USER",
            "messages[0].content": "has 101 characters",
            "temperature": "must be from 0 to 5",
            "top_k": "must be from 1 to 50",
            "stop[0]": "must not be empty",
            "request_id": "visible",
        },
        id="all_at_once",
    ),
    pytest.param(
        {"temperature": 6, "tools": [chat_pb2.Tool()]},
        {"prompt": "neither is set", "temperature": "from 0 to 5", "tools[0]": "must set function"},
        id="tools_too",
    ),
]


@pytest.mark.parametrize(("fields", "expected"), WRONG)
def test_wrong(fields: dict[str, Any], expected: dict[str, str]) -> None:
    found = violations_of(GenerateRequest(**fields))
    assert sorted(field for field, _ in found) == sorted(expected)
    assert all(expected[field] in description for field, description in found)


# Field, numbers that are accepted, numbers that are not. Ranges: the union of the published schemas.
NUMBERS: list[tuple[str, list[float], list[float]]] = [
    ("max_tokens", [1, 256, 2**31 - 1], [0, -1, -(2**31)]),
    ("temperature", [0, 0.001, 1, 5], [-0.001, 5.001, 1e9, math.nan, math.inf, -math.inf]),
    ("top_p", [0, 0.001, 1, 2], [-0.001, 2.001, math.nan, math.inf]),
    ("top_k", [1, 50], [0, -1, 51]),
    ("seed", [1, 9_999_999_999], [0, -1, 10_000_000_000, 2**63 - 1]),
    ("repetition_penalty", [0, 1, 2], [-0.001, 2.001, math.nan, math.inf]),
    ("frequency_penalty", [-2, 0, 2], [-2.001, 2.001, math.nan, -math.inf]),
    ("presence_penalty", [-2, 0, 2], [-2.001, 2.001, math.nan, math.inf]),
]


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, good, _ in NUMBERS for value in good])
def test_numbers_in_range(field: str, value: Any) -> None:
    assert violations_of(GenerateRequest(prompt="Hi", **{field: value})) == []


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, _, bad in NUMBERS for value in bad])
def test_numbers_out_of_range(field: str, value: Any) -> None:
    ((where, what),) = violations_of(GenerateRequest(prompt="Hi", **{field: value}))
    assert where == field
    assert " from " in what
    assert " to " in what


def test_whole_numbers_are_told_as_they_are() -> None:
    ((_, what),) = violations_of(GenerateRequest(prompt="Hi", seed=10_000_000_001))
    assert what.replace(",", "").startswith("is 10000000001")


@pytest.mark.parametrize(
    ("limit", "valid"),
    [
        (Duration(seconds=1), True),
        (Duration(nanos=1), True),
        (Duration(), False),
        (Duration(seconds=-1), False),
        (Duration(nanos=-1), False),
        (Duration(seconds=1, nanos=-(2**31)), False),
    ],
)
def test_time_limit(limit: Duration, valid: bool) -> None:
    found = violations_of(GenerateRequest(prompt="Hi", time_limit=limit))
    assert found == ([] if valid else [("time_limit", "must be longer than 0")])


def test_every_field_is_checked_or_known() -> None:
    """A field that is added to the contract must be dealt with: here, so that it is not ignored in silence."""
    dealt_with = {"model", "prompt", "messages", "raw", "stop", "request_id", "time_limit"}
    dealt_with |= {"tools", "functions", "tool_choice", "response_format"}  # check_tools.py
    dealt_with |= {"lora"}  # capabilities.py
    dealt_with |= {field for field, _, _ in NUMBERS}
    assert dealt_with == {field.name for field in GenerateRequest.DESCRIPTOR.fields}
    in_messages = {"role", "content", "name", "tool_calls", "tool_call_id"}
    assert in_messages == {field.name for field in chat_pb2.Message.DESCRIPTOR.fields}


def test_count_tokens_paths_lie_below_its_request() -> None:
    request = CountTokensRequest(generate_request=GenerateRequest(messages=[message("x" * 101)], temperature=9))
    with pytest.raises(InvalidRequest) as caught:
        check_count_tokens_request(request, LIMITS)
    assert [each.field for each in caught.value.violations] == [
        "generate_request.messages[0].content",
        "generate_request.temperature",
    ]
    assert str(caught.value).startswith("generate_request.messages[0].content: ")


def test_count_tokens_without_a_request() -> None:
    with pytest.raises(InvalidRequest, match=r"^generate_request\.prompt: "):
        check_count_tokens_request(CountTokensRequest(), LIMITS)


def test_count_tokens_of_many_wrong_fields_says_how_many() -> None:
    inner = GenerateRequest(messages=[message("x", 0) for _ in range(5_000)])
    for request, check in [
        (inner, check_generate_request),
        (CountTokensRequest(generate_request=inner), check_count_tokens_request),
    ]:
        with pytest.raises(InvalidRequest, match=r"and 4,981 more wrong fields") as caught:
            check(request, LIMITS)  # type: ignore[operator]
        assert len(caught.value.violations) == 20


@pytest.mark.parametrize(
    ("request_id", "valid"),
    [
        ("", True),
        ("a-1:/~", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        ("\x7f", False),
        ("é", False),
    ],
)
def test_request_ids(request_id: str, valid: bool) -> None:
    assert is_valid_request_id(request_id) is valid


def test_all_messages_together_are_limited() -> None:
    within = GenerateRequest(messages=[message("x" * LIMIT), message("x" * LIMIT)])
    assert violations_of(within) == []
    within.messages.add(role=USER, content="x")
    assert violations_of(within) == [("messages", "have 201 characters together, at most 200 are allowed")]


def test_messages_with_several_problems_are_one_wrong_field() -> None:
    long_system = [message("x" * LIMIT, chat_pb2.ROLE_SYSTEM) for _ in range(3)]
    assert violations_of(GenerateRequest(messages=long_system)) == [
        ("messages", "no message of the user holds any text")
    ]
    assert violations_of(GenerateRequest(prompt="Hi", messages=long_system)) == [
        ("messages", "give either prompt or messages, not both")
    ]
