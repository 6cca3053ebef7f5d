"""Tracing: what the variables ask for, a span per call that continues the caller's trace, and real OTLP over gRPC."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from server.call_record import CallRecord
from server.call_trace import Tracing
from server.tracing import TracingError, exporters_of, open_tracing
from tests.fakes import eventually

GENERATE = "/llamarpc.v1.TextGenerationService/Generate"
STREAM = "/llamarpc.v1.TextGenerationService/StreamGenerate"
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-01", f"00-{TRACE_ID}-{SPAN_ID}-00"

ANSWERED = CallRecord(
    method=GENERATE,
    request_id="r-1",
    status="OK",
    caller="alice",
    model="llama",
    adapter="pirate",
    prompt_tokens=10,
    completion_tokens=5,
    finish_reason="MAX_TOKENS",
    queue_seconds=0.25,
    first_token_seconds=0.5,
    duration_seconds=2.0,
)
REFUSED = CallRecord(
    method=STREAM,
    request_id="r-2",
    status="UNAVAILABLE",
    reason="ENGINE_UNAVAILABLE",
    model="llama",
    duration_seconds=1,
)
COUNTED = CallRecord(
    method="/llamarpc.v1.TextGenerationService/CountTokens", request_id="r-3", status="OK", duration_seconds=0.001
)


class Traced:
    """Tracing into memory."""

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        self.tracing = Tracing([self._memory], resource={"service.name": "llamarpc", "service.version": "1"})

    async def spans(self) -> tuple[ReadableSpan, ...]:
        """All that have ended. Closes the tracing."""
        await self.tracing.aclose()
        return self._memory.get_finished_spans()

    async def only_span(self) -> ReadableSpan:
        (span,) = await self.spans()
        return span

    async def span_of(self, record: CallRecord, *metadata: tuple[str, str | bytes]) -> ReadableSpan:
        """The span of one call from start to end."""
        self.tracing.open_call(record.method, metadata).end(record)
        return await self.only_span()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variables of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    logger = logging.getLogger("opentelemetry.trace")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture
def traced() -> Traced:
    return Traced()


# -------------------------------------------------------------------------------- what the variables ask for


@pytest.mark.parametrize(
    ("variables", "exporters"),
    [
        ({}, ()),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"}, ()),
        ({"OTEL_TRACES_EXPORTER": "none"}, ()),
        ({"OTEL_TRACES_EXPORTER": ""}, ()),
        ({"OTEL_TRACES_EXPORTER": "None", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ()),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://a:4317"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317"}, ("otlp_proto_grpc",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:4317"}, ("otlp_proto_grpc",)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp_proto_grpc",)),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ("otlp_proto_grpc", "console")),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ("otlp_proto_http",)),
        (
            {
                "OTEL_TRACES_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            },
            ("otlp_proto_grpc",),
        ),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, ("zipkin",)),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, ()),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "false"}, ("otlp_proto_grpc",)),
    ],
)
def test_opentelemetrys_variables_decide(variables: Mapping[str, str], exporters: tuple[str, ...]) -> None:
    assert exporters_of(variables) == exporters


def test_without_variables_nothing_is_imported() -> None:
    code = (
        "import sys; import server.__main__; from server.tracing import open_tracing\n"
        "assert open_tracing({'OTEL_SERVICE_NAME': 'x'}, version='1') is None\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_asked_for_and_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "server.call_trace")
    for name in [name for name in sys.modules if name.startswith("opentelemetry.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(TracingError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT .* pip install 'llamarpc\[tracing\]'"):
        open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317"}, version="1")


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"OTEL_TRACES_EXPORTER": "otpl"}, r"no exporter 'otpl' of traces; installed: console, .*OTEL_TRACES_EXPORTER"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            r"OTEL_EXPORTER_OTLP_PROTOCOL is 'http/json', must be one of grpc, http/protobuf",
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, r"OTEL_TRACES_EXPORTER asks.*'soon'"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_COMPRESSION": "zip"}, r"\"zip\" for compression"),
    ],
)
def test_wrong_variables_are_told_at_start(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], text: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TracingError, match=text):
        open_tracing(variables, version="1")


# -------------------------------------------------------------------------------- spans


async def test_a_span_holds_what_the_record_holds(traced: Traced) -> None:
    span = await traced.span_of(ANSWERED)
    assert (span.name, span.kind, span.parent) == (GENERATE[1:], SpanKind.SERVER, None)
    assert dict(span.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": GENERATE[1:],
        "rpc.response.status_code": "OK",
        "llamarpc.request_id": "r-1",
        "llamarpc.caller": "alice",
        "llamarpc.adapter": "pirate",
        "llamarpc.queue_seconds": 0.25,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llamarpc",
        "gen_ai.request.model": "llama",
        "gen_ai.request.stream": False,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.response.finish_reasons": ("max_tokens",),
        "gen_ai.response.time_to_first_chunk": 0.5,
    }
    assert span.status.status_code is StatusCode.UNSET


async def test_times_are_the_records(traced: Traced) -> None:
    before = time.time_ns()
    span = await traced.span_of(ANSWERED)
    assert span.start_time is not None
    assert before <= span.start_time <= time.time_ns()
    assert span.end_time == span.start_time + 2_000_000_000
    assert [(event.name, event.timestamp - span.start_time) for event in span.events] == [
        ("llamarpc.admitted", 250_000_000),
        ("llamarpc.first_token", 500_000_000),
    ]


async def test_what_is_not_known_is_left_out(traced: Traced) -> None:
    span = await traced.span_of(COUNTED)
    assert dict(span.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": COUNTED.method[1:],
        "rpc.response.status_code": "OK",
        "llamarpc.request_id": "r-3",
    }
    assert not span.events


@pytest.mark.parametrize(
    ("status", "failed"),
    [
        *((status, True) for status in ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "UNKNOWN")),
        *((status, False) for status in ("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED")),
        *((status, False) for status in ("CANCELLED", "ABORTED", "PERMISSION_DENIED")),
    ],
)
async def test_only_the_servers_failures_are_errors(traced: Traced, status: str, failed: bool) -> None:
    span = await traced.span_of(replace(REFUSED, status=status, reason="WHY"))
    attributes = dict(span.attributes or {})
    assert (attributes["rpc.response.status_code"], attributes["llamarpc.reason"]) == (status, "WHY")
    assert attributes.get("error.type") == (status if failed else None)
    assert span.status.status_code is (StatusCode.ERROR if failed else StatusCode.UNSET)
    assert span.status.description == ("WHY" if failed else None)


async def test_texts_of_callers_are_cut_and_made_encodable(traced: Traced) -> None:
    span = await traced.span_of(replace(ANSWERED, adapter="x" * 10_000, caller="a\ud800b"))
    attributes = dict(span.attributes or {})
    assert attributes["llamarpc.adapter"] == "x" * 256
    assert attributes["llamarpc.caller"] == "a?b"


# -------------------------------------------------------------------------------- the caller's trace, and Triton's


async def test_the_callers_trace_goes_on(traced: Traced) -> None:
    metadata = [("user-agent", "x"), ("traceparent", SAMPLED), ("tracestate", "a=1"), ("tracestate", "b=2")]
    trace = traced.tracing.open_call(GENERATE, metadata)
    headers = dict(trace.headers)
    trace.end(ANSWERED)
    span = await traced.only_span()
    assert span.parent is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, SPAN_ID)
    assert span.context is not None
    assert headers == {"traceparent": f"00-{TRACE_ID}-{span.context.span_id:016x}-01", "tracestate": "a=1,b=2"}


async def test_a_trace_of_our_own_is_sent_on(traced: Traced) -> None:
    trace = traced.tracing.open_call(GENERATE, ())
    ((name, value),) = trace.headers
    trace.end(ANSWERED)
    span = await traced.only_span()
    assert span.context is not None
    assert (name, value[:53]) == ("traceparent", f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")
    assert int(value[53:], 16) & 1


async def test_a_call_that_is_not_sampled_leaves_no_span_and_tells_nobody(traced: Traced) -> None:
    trace = traced.tracing.open_call(GENERATE, [("traceparent", NOT_SAMPLED)])
    assert trace.headers == ()
    trace.end(ANSWERED)
    assert await traced.spans() == ()


@pytest.mark.parametrize(("sampler", "kept"), [("always_off", 0), ("always_on", 1), ("parentbased_always_off", 0)])
async def test_the_sampler_is_opentelemetrys(monkeypatch: pytest.MonkeyPatch, sampler: str, kept: int) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    traced = Traced()
    traced.tracing.open_call(GENERATE, ()).end(ANSWERED)
    assert len(await traced.spans()) == kept


BAD_HEADERS: list[list[tuple[str, str | bytes]]] = [
    [("traceparent", "")],
    [("traceparent", "nonsense")],
    [("traceparent", SAMPLED.upper())],
    [("traceparent", SAMPLED + "-more")],
    [("traceparent", SAMPLED[:-1])],
    [("traceparent", SAMPLED.replace(TRACE_ID, "0" * 32))],
    [("traceparent", SAMPLED.replace(SPAN_ID, "0" * 16))],
    [("traceparent", "ff" + SAMPLED[2:])],
    [("traceparent", "x" * 10_000)],
    [("traceparent", SAMPLED), ("traceparent", SAMPLED)],
    [("traceparent", SAMPLED.encode())],
    [("traceparent-bin", SAMPLED.encode())],
    [("tracestate", "a=1")],
    [("traceparent", "\r\n" + SAMPLED), ("tracestate", "\x00")],
]


@pytest.mark.parametrize("metadata", BAD_HEADERS)
async def test_headers_that_cannot_be_read_are_ignored(traced: Traced, metadata: list[tuple[str, str | bytes]]) -> None:
    span = await traced.span_of(ANSWERED, *metadata)
    assert span.parent is None


@pytest.mark.parametrize("state", ["a", "=", "a=1,a=2", "a=\x00", "a=1," * 40 + "b=2", "x" * 10_000, "é=1", ",,,"])
async def test_a_bad_tracestate_costs_only_itself(traced: Traced, state: str) -> None:
    trace = traced.tracing.open_call(GENERATE, [("traceparent", SAMPLED), ("tracestate", state)])
    assert [name for name, _ in trace.headers] == ["traceparent"]
    trace.end(ANSWERED)
    assert (await traced.only_span()).parent is not None


async def test_bad_headers_are_not_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    tracing = opened(monkeypatch, {"OTEL_TRACES_EXPORTER": "console"})
    for state in ("bad\x1b[2J", "x" * 10_000, "a=1,a=2"):
        tracing.open_call(GENERATE, [("traceparent", SAMPLED), ("tracestate", state)])
    tracing.open_call(GENERATE, [("traceparent", "x" * 10_000)])
    await tracing.aclose()
    assert caplog.messages == []


# -------------------------------------------------------------------------------- sending


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Takes spans over OTLP, or never answers."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.silent = False

    async def Export(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        if self.silent:
            await asyncio.Event().wait()
        return trace_service_pb2.ExportTraceServiceResponse()


@asynccontextmanager
async def running_collector(collector: Collector) -> AsyncIterator[str]:
    """Serves the collector; gives its endpoint."""
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


def opened(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> Tracing:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tracing = open_tracing(variables, version="1.2")
    assert tracing is not None
    return tracing


async def test_spans_reach_an_otlp_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    async with running_collector(collector) as endpoint:
        tracing = opened(monkeypatch, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
        for record in (ANSWERED, REFUSED):
            tracing.open_call(record.method, [("traceparent", SAMPLED)]).end(record)
        await tracing.aclose()
    ((resource_spans,),) = [request.resource_spans for request in collector.requests]
    resource = {each.key: each.value.string_value for each in resource_spans.resource.attributes}
    assert (resource["service.name"], resource["service.version"]) == ("llamarpc", "1.2")
    (scope,) = resource_spans.scope_spans
    spans = {span.name: span for span in scope.spans}
    assert set(spans) == {GENERATE[1:], STREAM[1:]}
    assert {span.trace_id.hex() for span in scope.spans} == {TRACE_ID}
    assert {span.parent_span_id.hex() for span in scope.spans} == {SPAN_ID}
    attributes = {each.key: each.value for each in spans[GENERATE[1:]].attributes}
    assert attributes["gen_ai.usage.output_tokens"].int_value == 5
    assert [event.name for event in spans[GENERATE[1:]].events] == ["llamarpc.admitted", "llamarpc.first_token"]
    assert spans[STREAM[1:]].status.message == "ENGINE_UNAVAILABLE"


async def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.version=7")
    resource = (await Traced().span_of(ANSWERED)).resource.attributes
    assert (resource["service.name"], resource["service.version"]) == ("mine", "7")
    assert resource["deployment.environment.name"] == "test"


async def test_one_bad_text_does_not_cost_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    async with running_collector(collector) as endpoint:
        tracing = opened(monkeypatch, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
        for caller in ("good", "\ud800", "\x00"):
            tracing.open_call(GENERATE, ()).end(replace(ANSWERED, caller=caller))
        await tracing.aclose()
    assert sum(len(request.resource_spans[0].scope_spans[0].spans) for request in collector.requests) == 3


async def test_a_collector_that_does_not_answer_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collector = Collector()
    collector.silent = True
    async with running_collector(collector) as endpoint:
        tracing = opened(monkeypatch, {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
        tracing.open_call(GENERATE, ()).end(ANSWERED)
        closing = asyncio.create_task(tracing.aclose())
        await eventually(lambda: bool(collector.requests), what="the spans were sent")
        assert not closing.done()  # and the loop goes on meanwhile
        await asyncio.wait_for(closing, 5)
    assert "could not be sent within 2 s" in caplog.text


async def test_more_calls_than_can_be_sent_cost_spans_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    async with running_collector(collector) as endpoint:
        tracing = opened(
            monkeypatch,
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_BSP_MAX_QUEUE_SIZE": "10",
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
            },
        )
        for _ in range(1_000):  # the loop never gives the collector its turn
            tracing.open_call(GENERATE, ()).end(ANSWERED)
        await tracing.aclose()
    sent = sum(len(request.resource_spans[0].scope_spans[0].spans) for request in collector.requests)
    assert 10 <= sent < 1_000
