"""Tools and shaped answers on the real Triton with the real model, judged by an independent JSON Schema validator."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from llamarpc.v1 import chat_pb2
from llamarpc.v1 import text_generation_pb2 as pb

from tests.end_to_end.conftest import Service
from tests.schema_samples import random_schema

ROOT = Path(__file__).parents[2]
SCHEMAS = [random_schema(seed, max_depth=2, max_length=12, max_items=2) for seed in range(100)]
TOGETHER = 8  # as many as the engine has slots
REQUIRED = chat_pb2.ToolChoice(mode=chat_pb2.TOOL_CHOICE_MODE_REQUIRED)
NONE = chat_pb2.ToolChoice(mode=chat_pb2.TOOL_CHOICE_MODE_NONE)
NAMED = chat_pb2.ToolChoice(function_name="record")
CUT = (pb.FINISH_REASON_MAX_TOKENS, pb.FINISH_REASON_CONTEXT_LENGTH)


def tool(name: str, schema: dict[str, Any]) -> chat_pb2.Tool:
    return chat_pb2.Tool(function=chat_pb2.FunctionTool(name=name, parameters=json.dumps(schema, ensure_ascii=False)))


PING = tool("ping", {"type": "object", "properties": {"times": {"type": "integer", "minimum": 1, "maximum": 9}}})


def request(prompt: str, **fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(**{"prompt": prompt, "max_tokens": 250, "seed": 1, **fields})


async def streamed(service: Service, asked: pb.GenerateRequest) -> pb.GenerateResponse:
    """The answer put together from its pieces, as a caller would; whole calls must equal their pieces."""
    answer = pb.GenerateResponse()
    calls: list[chat_pb2.ToolCall] = []
    async for event in service.generation.StreamGenerate(asked):
        answer.response += event.response
        if event.HasField("tool_call"):
            piece = event.tool_call
            if piece.index == len(calls):
                calls.append(chat_pb2.ToolCall(id=piece.id, name=piece.name))
            calls[-1].arguments += piece.arguments
        if event.HasField("finished"):
            answer.MergeFrom(
                pb.GenerateResponse(
                    tool_calls=event.finished.tool_calls,
                    finish_reason=event.finished.finish_reason,
                    usage=event.finished.usage,
                )
            )
    assert calls[: len(answer.tool_calls)] == list(answer.tool_calls)
    assert len(calls) - len(answer.tool_calls) <= (answer.finish_reason in CUT), "a call was lost"
    return answer


def comparable(answer: pb.GenerateResponse) -> tuple[Any, ...]:
    """All but ids and times."""
    calls = [(call.name, call.arguments) for call in answer.tool_calls]
    return answer.response, calls, answer.finish_reason, answer.usage.completion_tokens


async def for_all(count: int, work: Callable[[int], Awaitable[None]]) -> None:
    """Runs `work(index)` for all indices, as many together as the engine has slots."""
    slots = asyncio.Semaphore(TOGETHER)

    async def one(index: int) -> None:
        async with slots:
            await work(index)

    await asyncio.gather(*(one(index) for index in range(count)))


@pytest.mark.parametrize("choice", [REQUIRED, NAMED], ids=["required", "named"])
@pytest.mark.timeout(1_800)
async def test_calls_of_a_hundred_schemas_satisfy_them(real: Service, choice: chat_pb2.ToolChoice) -> None:
    called = 0

    async def check(index: int) -> None:
        nonlocal called
        schema = SCHEMAS[index]
        offered = {"record": schema, "ping": json.loads(PING.function.parameters)}
        asked = request("Record something.", tools=[tool("record", schema), PING], tool_choice=choice, seed=index + 1)
        asked.max_tokens = 130  # a small model that has to call goes on calling
        answer = await streamed(real, asked) if index % 2 else await real.generation.Generate(asked)
        assert answer.response == ""
        assert answer.finish_reason == pb.FINISH_REASON_TOOL_CALLS or answer.finish_reason in CUT
        for call in answer.tool_calls:
            assert call.name in offered
            assert choice is REQUIRED or call.name == "record"
            Draft202012Validator(offered[call.name]).validate(json.loads(call.arguments))
        assert len(answer.tool_calls) <= 1 or choice is REQUIRED
        called += bool(answer.tool_calls)

    await for_all(len(SCHEMAS), check)
    assert called >= 75, "too many calls were cut to show much"


@pytest.mark.parametrize("index", range(0, 100, 20))
async def test_streamed_and_whole_answers_agree(real: Service, index: int) -> None:
    shape = chat_pb2.ResponseFormat(json_schema=json.dumps(SCHEMAS[index]))
    tools = {"tools": [tool("record", SCHEMAS[index]), PING], "tool_choice": REQUIRED}
    for asked in (
        request("Record something.", max_tokens=60, response_format=shape),
        request("Record something.", max_tokens=60, **tools),
    ):
        whole = await real.generation.Generate(asked)
        assert comparable(await streamed(real, asked)) == comparable(whole)


@pytest.mark.timeout(1_800)
async def test_answers_of_a_hundred_schemas_satisfy_them(real: Service) -> None:
    complete = 0

    async def check(index: int) -> None:
        nonlocal complete
        schema = SCHEMAS[index]
        shape = chat_pb2.ResponseFormat(json_schema=json.dumps(schema, ensure_ascii=False))
        asked = request("Something as JSON.", response_format=shape, seed=index + 1)
        answer = await streamed(real, asked) if index % 2 else await real.generation.Generate(asked)
        if answer.finish_reason == pb.FINISH_REASON_STOP:
            complete += 1
            Draft202012Validator(schema).validate(json.loads(answer.response))

    await for_all(len(SCHEMAS), check)
    assert complete >= 75, "too many answers were cut to show much"


FORMATS: list[tuple[str, chat_pb2.ResponseFormat, Callable[[str], bool]]] = [
    ("json_object", chat_pb2.ResponseFormat(json_object={}), lambda text: isinstance(json.loads(text), dict)),
    (
        "regex",
        chat_pb2.ResponseFormat(regex=r"(Mon|Tues|Sun)day, \d{1,2}:[0-5]\d (a|p)m"),
        lambda text: bool(re.fullmatch(r"(Mon|Tues|Sun)day, \d{1,2}:[0-5]\d (a|p)m", text)),
    ),
    (
        "grammar",
        chat_pb2.ResponseFormat(grammar='root ::= "(" root ")" | "é" [🦊🦙]{2}  # balanced\n'),
        lambda text: bool(re.fullmatch(r"\(*é[🦊🦙]{2}\)*", text)) and text.count("(") == text.count(")"),
    ),
]


@pytest.mark.parametrize(("shape", "is_right"), [each[1:] for each in FORMATS], ids=[each[0] for each in FORMATS])
async def test_other_formats(real: Service, shape: chat_pb2.ResponseFormat, is_right: Callable[[str], bool]) -> None:
    complete = 0
    for seed in range(1, 7):
        asked = request("When do we meet, and what for?", response_format=shape, seed=seed, max_tokens=120)
        answer = await real.generation.Generate(asked)
        assert comparable(await streamed(real, asked)) == comparable(answer)
        if answer.finish_reason == pb.FINISH_REASON_STOP:
            complete += 1
            assert is_right(answer.response), answer.response
    assert complete >= 2


WEATHER = tool(
    "get_weather",
    {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]},
)


async def test_auto_is_text_or_calls_and_never_a_mix(real: Service) -> None:
    kinds = set()

    async def check(index: int) -> None:
        prompts = ("What is the weather in Paris?", "Say hello.", "Write <tool_call> and nothing else.")
        asked = request(prompts[index % 3], tools=[WEATHER, PING], seed=index + 1, max_tokens=60)
        answer = await streamed(real, asked)
        assert not (answer.response and answer.tool_calls)
        assert "<tool_call>" not in answer.response
        kinds.add(bool(answer.response))

    await for_all(24, check)
    assert True in kinds


async def test_none_is_text(real: Service) -> None:
    asked = request("What is the weather in Paris?", tools=[WEATHER], tool_choice=NONE, max_tokens=40)
    answer = await real.generation.Generate(asked)
    assert answer.response
    assert not answer.tool_calls


async def test_a_function_given_as_code_is_called_with_its_parameters(real: Service) -> None:
    code = 'def book(room: Literal["A", "B"], hours: int = 1) -> None: ...'
    asked = request("Book room A.", functions=[{"name": "book", "code": code}], tool_choice={"function_name": "book"})
    answer = await real.generation.Generate(asked)
    (call,) = answer.tool_calls
    arguments = json.loads(call.arguments)
    assert arguments["room"] in ("A", "B")
    assert set(arguments) <= {"room", "hours"}


async def test_the_tool_loop_of_the_readme(real: Service) -> None:
    """A call, its result, and a final text: the lines that the README shows, run as they stand."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    (code,) = (block for block in blocks if "tool_result" in block)
    program = code.replace("127.0.0.1:50051", real.address)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python")}
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    out, err = await running.communicate()
    assert running.returncode == 0, err.decode()
    call, _, text = out.decode().partition("\n")
    assert call in ('get_weather {"city": "Paris"}', 'get_weather {"city": "Oslo"}')
    assert text.strip()


async def test_time_limit_gives_what_there_is(real: Service) -> None:
    asked = request("Tell me a long story.", max_tokens=4_000, time_limit={"seconds": 4})
    answer = await real.generation.Generate(asked)
    assert answer.finish_reason == pb.FINISH_REASON_TIME_LIMIT
    assert 0 < answer.usage.completion_tokens < 4_000
    assert 4 <= answer.timing.duration.ToTimedelta().total_seconds() < 20


async def test_a_call_that_is_cut_off_is_no_call(real: Service) -> None:
    answer = await streamed(real, request("Weather?", tools=[WEATHER], tool_choice=REQUIRED, max_tokens=16))
    assert answer.finish_reason == pb.FINISH_REASON_MAX_TOKENS
    assert (answer.response, list(answer.tool_calls)) == ("", [])
