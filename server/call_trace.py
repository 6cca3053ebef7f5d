"""One OpenTelemetry span per call: part of the caller's trace, and what Triton's spans can be part of.

A span holds what a `CallRecord` holds, so never a word of a prompt or an answer. Attributes have the names of
OpenTelemetry's conventions for RPC and for generative AI, others begin with `llamarpc.`. Imports OpenTelemetry, so only
`tracing.py` imports this module, and only where traces are asked for. Knows no gRPC and no settings.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TypeAlias

from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .call_record import GENERATION_METHODS, OPERATION, PROVIDER, CallRecord

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]
TraceHeaders: TypeAlias = tuple[tuple[str, str], ...]

# W3C Trace Context.
_PROPAGATOR = TraceContextTextMapPropagator()
_TRACEPARENT, _TRACESTATE = "traceparent", "tracestate"

# By the conventions for gRPC: to a server, other statuses are answers, also those that tell callers of a mistake.
_FAILURES = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})

_MAX_TEXT_CHARACTERS = 256
_SEND_SECONDS = 2.0

_Value: TypeAlias = str | bool | int | float | tuple[str, ...] | None

log = logging.getLogger(__name__)


class Tracing:
    """Opens spans and sends them, from a thread of its own. Close it with `aclose()`."""

    def __init__(self, exporters: Iterable[SpanExporter], *, resource: Mapping[str, str]) -> None:
        """Spans go to all `exporters`. `resource` is said of this process where its environment says nothing else."""
        named = OTELResourceDetector().detect().attributes
        ours = {name: value for name, value in resource.items() if name not in named}
        self._provider = TracerProvider(resource=Resource.create(ours), shutdown_on_exit=False)
        for exporter in exporters:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(PROVIDER)

    def open_call(self, method: str, metadata: Metadata) -> CallTrace:
        """Opens the span of a call of `/package.Service/Method` that has just come, with the caller's metadata."""
        arrived = time.time_ns()
        span = self._tracer.start_span(
            method[1:],
            context=_parent(metadata),
            kind=SpanKind.SERVER,
            attributes={"rpc.system.name": "grpc", "rpc.method": method[1:]},
            start_time=arrived,
        )
        return CallTrace(span, arrived)

    async def aclose(self) -> None:
        """Sends what has not been sent yet. A collector that takes longer than two seconds does not get it."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # it took too long: the loop has been closed
                loop.call_soon_threadsafe(sent.set)

        # Neither the loop nor the end of the process waits for a daemon, as they would for a thread of asyncio's.
        threading.Thread(target=send, name="tracing", daemon=True).start()
        try:
            await asyncio.wait_for(sent.wait(), _SEND_SECONDS)
        except asyncio.TimeoutError:
            log.warning("the spans of the last calls could not be sent within %g s; they are lost", _SEND_SECONDS)


class CallTrace:
    """The span of one call. End it once, with the call's record."""

    __slots__ = ("_arrived", "_span")

    def __init__(self, span: Span, arrived: int) -> None:
        """`arrived` is the span's start, in nanoseconds since 1970."""
        self._span = span
        self._arrived = arrived

    @property
    def headers(self) -> TraceHeaders:
        """Metadata for a request to another service, by which its spans become children of this one.

        Empty where the call is not sampled: Triton traces whatever comes with a trace, also when it says not to.
        """
        if not self._span.get_span_context().trace_flags.sampled:
            return ()
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers, set_span_in_context(self._span, Context()))
        return tuple(headers.items())

    def end(self, record: CallRecord) -> None:
        """Tells the span what became of the call, and ends it."""
        if self._span.is_recording():
            self._span.set_attributes(_attributes(record))
            self._add_event("llamarpc.admitted", record.queue_seconds)
            self._add_event("llamarpc.first_token", record.first_token_seconds)
            if record.status in _FAILURES:
                self._span.set_status(Status(StatusCode.ERROR, record.reason or record.status))
        self._span.end(self._after(record.duration_seconds))

    def _add_event(self, name: str, seconds: float | None) -> None:
        if seconds is not None:
            self._span.add_event(name, timestamp=self._after(seconds))

    def _after(self, seconds: float) -> int:
        return self._arrived + round(seconds * 1e9)


def _parent(metadata: Metadata) -> Context:
    """The span that the caller works on, where its headers name one that can be read; else no span."""
    headers: dict[str, list[str]] = {_TRACEPARENT: [], _TRACESTATE: []}
    for key, value in metadata:
        if key in headers and isinstance(value, str):
            headers[key].append(value)
    # Of two parents neither is the right one.
    return _PROPAGATOR.extract(headers, Context()) if len(headers[_TRACEPARENT]) == 1 else Context()


def _attributes(record: CallRecord) -> dict[str, str | bool | int | float | tuple[str, ...]]:
    told: dict[str, _Value] = {
        "rpc.response.status_code": record.status,
        "error.type": record.status if record.status in _FAILURES else None,
        "llamarpc.reason": record.reason,
        "llamarpc.request_id": record.request_id,
        "llamarpc.caller": record.caller,
        **(_generation_attributes(record) if record.method in GENERATION_METHODS else {}),
    }
    return {name: _encodable(value) for name, value in told.items() if value is not None}


def _generation_attributes(record: CallRecord) -> dict[str, _Value]:
    return {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": record.model,
        "gen_ai.request.stream": GENERATION_METHODS[record.method],
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "gen_ai.response.finish_reasons": None if record.finish_reason is None else (record.finish_reason.lower(),),
        "gen_ai.response.time_to_first_chunk": record.first_token_seconds,
        "llamarpc.adapter": record.adapter,
        "llamarpc.queue_seconds": record.queue_seconds,
    }


def _encodable(value: str | bool | int | float | tuple[str, ...]) -> str | bool | int | float | tuple[str, ...]:
    """A text short and in Unicode: one that can't be encoded would take a whole batch of spans with it."""
    if not isinstance(value, str):
        return value
    return value[:_MAX_TEXT_CHARACTERS].encode(errors="replace").decode()
