"""Messages to values and back: every hole is filled, every event has its message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from llamarpc.v1 import chat_pb2, model_pb2
from llamarpc.v1 import text_generation_pb2 as pb2

from server.bundle import GenerationDefaults, read_bundle
from server.chat.model import (
    Conversation,
    Event,
    Finished,
    FinishReason,
    FunctionTool,
    GenerationRequest,
    Message,
    RawPrompt,
    ReplyShape,
    Role,
    Sampling,
    Started,
    Text,
    TextWithoutCalls,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from server.convert import ResponseWriter, model_to_proto, request_from_proto
from tests.fakes import write_bundle

PUBLISHED = GenerationDefaults(max_tokens=9, temperature=0.5, top_p=0.75, top_k=40, repetition_penalty=1.5)


def converted(*, defaults: GenerationDefaults | None = None, **fields: Any) -> GenerationRequest:
    whole: dict[str, Any] = {"prompt": "Hi", "seed": 7, **fields}
    message = pb2.GenerateRequest(**whole)
    return request_from_proto(message, defaults=defaults or GenerationDefaults(), adapters={"poet": 3}, guided=True)


def test_defaults_are_the_retired_apis() -> None:
    request = converted()
    assert request.max_tokens == 256
    assert request.sampling == Sampling(
        temperature=0.6, top_p=1.0, top_k=0, seed=7, repetition_penalty=1.0, frequency_penalty=0, presence_penalty=0
    )
    assert (request.stop, request.shape, request.adapter_id, request.time_limit_seconds) == (
        (),
        ReplyShape(),
        None,
        None,
    )


def test_the_publishers_defaults_win_over_them() -> None:
    request = converted(defaults=PUBLISHED)
    assert request.max_tokens == 9
    assert request.sampling == Sampling(
        temperature=0.5, top_p=0.75, top_k=40, seed=7, repetition_penalty=1.5, frequency_penalty=0, presence_penalty=0
    )


def test_the_request_wins_over_all() -> None:
    fields = {"temperature": 2.0, "top_p": 0.5, "top_k": 3, "repetition_penalty": 1.25, "frequency_penalty": -2.0}
    request = converted(defaults=PUBLISHED, max_tokens=1, presence_penalty=2.0, **fields)
    assert request.max_tokens == 1
    assert request.sampling == Sampling(**fields, seed=7, presence_penalty=2.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "temperature", "top_p", "top_k"),
    [
        pytest.param({"temperature": 0}, 1.0, 1.0, 1, id="temperature_0"),
        pytest.param({"temperature": 0.0009}, 1.0, 1.0, 1, id="temperature_almost_0"),
        pytest.param({"temperature": 0, "top_p": 0.5, "top_k": 9}, 1.0, 1.0, 1, id="temperature_0_wins"),
        pytest.param({"top_p": 0}, 1.0, 1.0, 1, id="top_p_0"),
        pytest.param({"top_k": 1}, 1.0, 1.0, 1, id="top_k_1"),
        pytest.param({"temperature": 0.25, "top_p": 2}, 0.25, 1.0, 0, id="top_p_above_1"),
        pytest.param({"temperature": 5, "top_k": 50}, 5.0, 1.0, 50, id="largest"),
    ],
)
def test_greedy_and_capped(fields: dict[str, Any], temperature: float, top_p: float, top_k: int) -> None:
    sampling = converted(**fields).sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (temperature, top_p, top_k)


def test_publishers_greedy_defaults_are_greedy() -> None:
    assert converted(defaults=GenerationDefaults(temperature=0.0)).sampling.top_k == 1


@pytest.mark.parametrize(("given", "used"), [(0.0, 1.0), (1.0, 1.0), (2.0, 2.0), (0.5, 0.5)])
def test_repetition_penalty_0_is_off(given: float, used: float) -> None:
    assert converted(repetition_penalty=given).sampling.repetition_penalty == used


def test_seed_is_fresh_unless_given() -> None:
    requests = [
        request_from_proto(pb2.GenerateRequest(prompt="Hi"), defaults=PUBLISHED, adapters={}, guided=True)
        for _ in range(20)
    ]
    seeds = {request.sampling.seed for request in requests}
    assert len(seeds) > 10
    assert all(1 <= seed <= 9_999_999_999 for seed in seeds)
    assert converted(seed=9_999_999_999).sampling.seed == 9_999_999_999


def test_request_id_is_made_up_unless_given() -> None:
    assert converted(request_id="mine").request_id == "mine"
    assert converted().request_id != converted().request_id


def test_stop_strings_keep_their_order_once() -> None:
    assert converted(stop=["b", "a", "b"]).stop == ("b", "a")


def turn(role: Any, content: str) -> chat_pb2.Message:
    return chat_pb2.Message(role=role, content=content)


TURNS = [
    turn(chat_pb2.ROLE_SYSTEM, " S "),
    turn(chat_pb2.ROLE_USER, "U"),
    turn(chat_pb2.ROLE_ASSISTANT, "A"),
]


@pytest.mark.parametrize(
    ("fields", "prompt", "field"),
    [
        pytest.param(
            {"prompt": " Hi "}, Conversation(messages=(Message(role=Role.USER, content=" Hi "),)), "prompt", id="prompt"
        ),
        pytest.param({"prompt": " Hi ", "raw": True}, RawPrompt(text=" Hi "), "prompt", id="raw_prompt"),
        pytest.param(
            {"messages": TURNS},
            Conversation(
                messages=(
                    Message(role=Role.SYSTEM, content=" S "),
                    Message(role=Role.USER, content="U"),
                    Message(role=Role.ASSISTANT, content="A"),
                )
            ),
            "messages",
            id="messages",
        ),
        pytest.param({"messages": TURNS, "raw": True}, RawPrompt(text=" S UA"), "messages", id="raw_messages"),
    ],
)
def test_prompts(fields: dict[str, Any], prompt: Any, field: str) -> None:
    request = request_from_proto(pb2.GenerateRequest(**fields), defaults=PUBLISHED, adapters={}, guided=True)
    assert (request.prompt, request.prompt_field) == (prompt, field)


def finished(reason: FinishReason = FinishReason.STOP, **changes: Any) -> Finished:
    fields: dict[str, Any] = {"stop_sequence": None, "first_token_seconds": 0.25, "duration_seconds": 61.5}
    usage = Usage(prompt_tokens=3, completion_tokens=4)
    return Finished(**{"finish_reason": reason, "usage": usage, **fields, **changes})


def test_stream_messages() -> None:
    writer = ResponseWriter(converted(request_id="r"), model_id="m")
    events: list[Event] = [Started(prompt_tokens=3), Text(text="Hé"), Text(text="y"), finished()]
    started, first, second, last = [writer.stream_message(event) for event in events]
    assert [each.sequence for each in (started, first, second, last)] == [0, 1, 2, 3]
    assert started.started == pb2.Started(request_id="r", model="m", seed=7, prompt_tokens=3)
    assert (first.response, second.response, started.response, last.response) == ("Hé", "y", "", "")
    assert last.finished.usage == pb2.Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
    assert last.finished.finish_reason == pb2.FINISH_REASON_STOP
    assert last.finished.timing.duration.ToMilliseconds() == 61_500
    assert last.finished.timing.time_to_first_token.ToMilliseconds() == 250


def test_whole_answer() -> None:
    writer = ResponseWriter(converted(request_id="r"), model_id="m")
    end = finished(FinishReason.STOP_SEQUENCE, stop_sequence="END")
    before = [writer.collect(event) for event in (Started(prompt_tokens=3), Text(text="Hé"), Text(text="y"))]
    assert before == [None, None, None]
    answer = writer.collect(end)
    assert answer is not None
    assert (answer.response, answer.request_id, answer.model, answer.seed) == ("Héy", "r", "m", 7)
    assert (answer.finish_reason, answer.stop_sequence) == (pb2.FINISH_REASON_STOP_SEQUENCE, "END")
    assert answer.usage == pb2.Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
    assert answer.timing.duration.ToMilliseconds() == 61_500


@pytest.mark.parametrize("reason", FinishReason)
def test_every_finish_reason_has_its_value(reason: FinishReason) -> None:
    message = ResponseWriter(converted(), model_id="m").stream_message(finished(reason))
    name = pb2.FinishReason.Name(message.finished.finish_reason)
    assert name == f"FINISH_REASON_{reason.name}"


def test_no_first_token_no_time_to_it() -> None:
    message = ResponseWriter(converted(), model_id="m").stream_message(finished(first_token_seconds=None))
    assert not message.finished.timing.HasField("time_to_first_token")


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0, (0, 0)), (1.0, (1, 0)), (0.5, (0, 500_000_000)), (3600.25, (3600, 250_000_000))]
)
def test_durations(seconds: float, expected: tuple[int, int]) -> None:
    message = ResponseWriter(converted(), model_id="m").stream_message(finished(duration_seconds=seconds))
    duration = message.finished.timing.duration
    assert (duration.seconds, duration.nanos) == expected


def test_model(tmp_path: Path) -> None:
    write_bundle(tmp_path, adapters={"b": 2, "a": 1}, generation_defaults={"temperature": 0.5, "top_k": 4})
    model = model_to_proto(read_bundle(tmp_path))
    assert (model.id, model.display_name, model.context_length) == ("bytes-1", "Bytes", 1_000)
    assert (model.prompt_format, model.license) == ("chatml", "apache-2.0")
    assert [adapter.name for adapter in model.adapters] == ["a", "b"]
    assert model.engine == model_pb2.Engine(kind="scripted", version="1", source="none")
    assert model.defaults == model_pb2.GenerationDefaults(
        max_tokens=256, temperature=0.5, top_p=1, top_k=4, repetition_penalty=1
    )
    assert model.capabilities.tools
    assert model.capabilities.lora


TOOL = chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f", description="d"))
NO_ARGUMENTS = '{"type": "object", "properties": {}}'


def test_tools_calls_and_results() -> None:
    call = chat_pb2.ToolCall(id="1", name="f", arguments="{}")
    messages = [
        turn(chat_pb2.ROLE_USER, "U"),
        chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, tool_calls=[call]),
        chat_pb2.Message(role=chat_pb2.ROLE_TOOL, content="R", tool_call_id="1", name="f"),
    ]
    prompt = converted_messages(messages=messages, tools=[TOOL]).prompt
    assert prompt == Conversation(
        messages=(
            Message(role=Role.USER, content="U"),
            Message(role=Role.ASSISTANT, content="", tool_calls=(ToolCall(id="1", name="f", arguments="{}"),)),
            Message(role=Role.TOOL, content="R", tool_call_id="1", name="f"),
        ),
        functions=(FunctionTool(name="f", description="d", parameters=NO_ARGUMENTS),),
    )


@pytest.mark.parametrize("parameters", ["", "{}", " { \n} "])
def test_tools_without_parameters_take_none(parameters: str) -> None:
    tool = chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f", description="d", parameters=parameters))
    prompt = converted_messages(messages=[turn(chat_pb2.ROLE_USER, "U")], tools=[tool]).prompt
    assert isinstance(prompt, Conversation)
    assert [function.parameters for function in prompt.functions] == [NO_ARGUMENTS]


def converted_messages(**fields: Any) -> GenerationRequest:
    return request_from_proto(pb2.GenerateRequest(**fields), defaults=PUBLISHED, adapters={}, guided=True)


def test_tools_that_may_not_be_called_are_not_told() -> None:
    none = chat_pb2.ToolChoice(mode=chat_pb2.TOOL_CHOICE_MODE_NONE)
    prompt = converted(tools=[TOOL], tool_choice=none).prompt
    assert isinstance(prompt, Conversation)
    assert prompt.functions == ()


def test_adapter_and_time_limit() -> None:
    request = converted(lora="poet", time_limit=Duration(seconds=1, nanos=500_000_000))
    assert (request.adapter_id, request.time_limit_seconds) == (3, 1.5)


def test_a_conversation_with_calls_gets_no_more_of_them_as_text() -> None:
    result = chat_pb2.Message(role=chat_pb2.ROLE_TOOL, content="R")
    messages = [turn(chat_pb2.ROLE_USER, "U"), result]
    assert converted_messages(messages=messages).shape == ReplyShape(text=TextWithoutCalls())
    assert converted_messages(messages=messages).guide is not None
    plain = request_from_proto(pb2.GenerateRequest(messages=messages), defaults=PUBLISHED, adapters={}, guided=False)
    assert plain.guide is None


def test_tool_calls_in_messages() -> None:
    call = ToolCall(id="c", name="f", arguments='{"a": 1}')
    first = ToolCallDelta(index=0, id="c", name="f")
    second = ToolCallDelta(index=0, arguments='{"a": 1}')
    writer = ResponseWriter(converted(), model_id="m")
    assert writer.stream_message(first).tool_call == chat_pb2.ToolCallDelta(id="c", name="f")
    assert writer.stream_message(second).tool_call == chat_pb2.ToolCallDelta(arguments='{"a": 1}')
    end = finished(FinishReason.TOOL_CALLS, tool_calls=(call,))
    expected = [chat_pb2.ToolCall(id="c", name="f", arguments='{"a": 1}')]
    assert list(writer.stream_message(end).finished.tool_calls) == expected
    whole = ResponseWriter(converted(), model_id="m")
    assert [whole.collect(event) for event in (first, second)] == [None, None]
    answer = whole.collect(end)
    assert answer is not None
    assert (answer.response, list(answer.tool_calls)) == ("", expected)
