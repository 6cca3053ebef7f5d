"""Traces of real calls: a span per call, part of the caller's trace, and Triton told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from llamarpc.v1.model_pb2 import GetModelRequest
from llamarpc.v1.text_generation_pb2 import GenerateRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from server.call_trace import Tracing
from server.errors import EngineFailed
from server.triton.engine import TritonEngine
from tests.fakes import FakeTriton, Final, RunningServer, ScriptedEngine, running_server, running_triton

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-01", f"00-{TRACE_ID}-{SPAN_ID}-00"


class Traced:
    """Tracing into memory."""

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        self.tracing = Tracing([self._memory], resource={})

    @property
    def options(self) -> dict[str, Any]:
        return {"server_options": {"tracing": self.tracing}}

    async def spans(self) -> tuple[ReadableSpan, ...]:
        await self.tracing.aclose()
        return self._memory.get_finished_spans()


async def stream(running: RunningServer, **arguments: Any) -> None:
    async for _ in running.text.StreamGenerate(GenerateRequest(prompt="secret question"), **arguments):
        pass


async def test_a_generation_leaves_one_span(tmp_path: Path) -> None:
    traced = Traced()
    async with running_server(tmp_path, ScriptedEngine([b"secret ", b"answer"]), **traced.options) as running:
        await stream(running, metadata=[("traceparent", SAMPLED)])
    (span,) = await traced.spans()
    attributes = dict(span.attributes or {})
    assert attributes["rpc.method"] == "llamarpc.v1.TextGenerationService/StreamGenerate"
    assert (attributes["gen_ai.request.model"], attributes["gen_ai.usage.output_tokens"]) == ("bytes-1", 13)
    assert [event.name for event in span.events] == ["llamarpc.admitted", "llamarpc.first_token"]
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == SPAN_ID
    assert "secret" not in span.to_json()


async def test_every_end_of_a_call_ends_its_span(tmp_path: Path) -> None:
    traced = Traced()
    async with running_server(tmp_path, ScriptedEngine([b"x", EngineFailed("broken")]), **traced.options) as running:
        with pytest.raises(grpc.aio.AioRpcError):
            await stream(running)
        with pytest.raises(grpc.aio.AioRpcError):
            await running.models.GetModel(GetModelRequest(model="other"))
        await running.models.GetModel(GetModelRequest())
    ends = [
        ((span.attributes or {})["rpc.response.status_code"], span.status.status_code) for span in await traced.spans()
    ]
    assert ends == [("INTERNAL", StatusCode.ERROR), ("NOT_FOUND", StatusCode.UNSET), ("OK", StatusCode.UNSET)]


@pytest.mark.parametrize(("traceparent", "told"), [(SAMPLED, True), (NOT_SAMPLED, False)])
async def test_triton_is_told_of_sampled_traces(tmp_path: Path, traceparent: str, told: bool) -> None:
    traced, triton = Traced(), FakeTriton([1], Final())
    async with running_triton(triton) as address:
        engine = TritonEngine(address, model_name="tensorrt_llm", context_length=1_000)
        async with running_server(tmp_path, engine, **traced.options) as running:
            await stream(running, metadata=[("traceparent", traceparent), ("tracestate", "a=1")])
        await engine.aclose()
    spans = await traced.spans()
    (metadata,) = triton.metadata
    assert metadata["triton_grpc_error"] == "true"
    if told:
        (span,) = spans
        assert span.context is not None
        assert metadata["traceparent"] == f"00-{TRACE_ID}-{span.context.span_id:016x}-01"
        assert metadata["tracestate"] == "a=1"
    else:
        assert (spans, "traceparent" in metadata) == ((), False)


async def test_without_tracing_triton_is_told_nothing(tmp_path: Path) -> None:
    triton = FakeTriton([1], Final())
    async with running_triton(triton) as address:
        engine = TritonEngine(address, model_name="tensorrt_llm", context_length=1_000)
        async with running_server(tmp_path, engine) as running:
            await stream(running, metadata=[("traceparent", SAMPLED)])
        await engine.aclose()
    assert "traceparent" not in triton.metadata[0]
