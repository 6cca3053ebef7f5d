"""Counts what happens in the server, for Prometheus.

All there is to know of a call is read from its `CallRecord` when it has ended, so nothing is counted per token. Knows
no HTTP (`metrics_endpoint.py`), no gRPC and no settings; the metrics themselves are in `metric_specs.py`.

Every process has a registry of its own. Where several processes serve one port, prometheus_client keeps the numbers in
files: `PROMETHEUS_MULTIPROC_DIR` must name their folder before this module is imported.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.multiprocess import MultiProcessCollector

from .call_record import GENERATION_METHODS, OPERATION, PROVIDER, CallRecord
from .metric_specs import METRICS, MetricSpec

OTHER = "other"
"""Stands for what would make a label grow without bounds: unknown methods and models, too many callers."""

# Labels of callers, where asked for: certificates and a reloaded token file could name ever new ones.
MAX_CALLERS = 1_000

METHODS = (
    *GENERATION_METHODS,
    "/llamarpc.v1.TextGenerationService/CountTokens",
    "/llamarpc.v1.ModelService/ListModels",
    "/llamarpc.v1.ModelService/GetModel",
)
REFUSALS = (
    "OVERLOADED",
    "CALLER_LIMIT_REACHED",
    "ENGINE_BUSY",
    "SHUTTING_DOWN",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
)
"""Reasons of calls that were turned away, not wrong in themselves and not failed."""
FINISH_REASONS = ("STOP", "STOP_SEQUENCE", "MAX_TOKENS", "CONTEXT_LENGTH", "TOOL_CALLS", "TIME_LIMIT")
_SLOW_READER = "SLOW_READER"


# Gauges are looked at every 15 seconds or so; sampling costs less than following each change, and can't drift.
_SAMPLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy the server is at one moment."""

    calls_in_flight: int
    requests_running: int
    requests_waiting: int
    engine_ready: bool


class Metrics:
    """Counts what happens in this process. All methods are for the event loop's thread and take microseconds."""

    def __init__(self, *, model: str, version: str, label_callers: bool = False) -> None:
        """`model` is the served model's id, `version` the server's."""
        disable_created_metrics()  # their series would be as many as all others together, and nothing here reads them
        self.registry = CollectorRegistry()
        self._model = model
        self._label_callers = label_callers
        self._callers: dict[str, str] = {}
        self._counters = {each.name: _counter(each, self.registry) for each in METRICS if each.kind == "counter"}
        self._gauges = {each.name: _gauge(each, self.registry) for each in METRICS if each.kind == "gauge"}
        self._histograms = {each.name: _histogram(each, self.registry) for each in METRICS if each.kind == "histogram"}
        self._start_at_zero()
        self._gauges["llamarpc_build_info"].labels(version, platform.python_version(), model).set(1)

    def call_started(self, method: str) -> None:
        """A call of `/package.Service/Method` has come."""
        self._counters["grpc_server_call_started_total"].labels(_method_label(method)).inc()

    def call_ended(self, record: CallRecord) -> None:
        """A call has ended."""
        duration = self._histograms["grpc_server_call_duration_seconds"]
        duration.labels(_method_label(record.method), record.status).observe(record.duration_seconds)
        if record.reason in REFUSALS:
            self._counters["llamarpc_refusals_total"].labels(record.reason).inc()
        elif record.reason == _SLOW_READER:
            self._counters["llamarpc_slow_readers_total"].inc()
        if record.method in GENERATION_METHODS:
            self._generation_ended(record)

    def resumed(self) -> None:
        """An answer goes on after the engine's connection broke."""
        self._counters["llamarpc_resumes_total"].inc()

    def set_load(self, load: Load) -> None:
        """How busy the server is now."""
        self._gauges["llamarpc_calls_in_flight"].set(load.calls_in_flight)
        self._gauges["llamarpc_requests_running"].set(load.requests_running)
        self._gauges["llamarpc_requests_waiting"].set(load.requests_waiting)
        self._gauges["llamarpc_engine_ready"].set(load.engine_ready)

    async def follow(self, load: Callable[[], Load]) -> None:
        """Asks for the load every second, until cancelled."""
        while True:
            self.set_load(load())
            await asyncio.sleep(_SAMPLE_SECONDS)

    def _generation_ended(self, record: CallRecord) -> None:
        gen_ai = (OPERATION, PROVIDER, self._model_label(record.model))
        error = "" if record.status == "OK" else record.reason or record.status
        self._histograms["gen_ai_server_request_duration_seconds"].labels(*gen_ai, error).observe(
            record.duration_seconds
        )
        if record.queue_seconds is not None:
            self._histograms["llamarpc_queue_seconds"].observe(record.queue_seconds)
        if record.finish_reason is not None:
            self._counters["llamarpc_finish_reasons_total"].labels(record.finish_reason).inc()
        if not error:
            self._observe_speed(record, gen_ai)
        self._count_tokens(record, "input", record.prompt_tokens)
        self._count_tokens(record, "output", record.completion_tokens)

    def _observe_speed(self, record: CallRecord, gen_ai: tuple[str, str, str]) -> None:
        if record.first_token_seconds is None:
            return
        self._histograms["gen_ai_server_time_to_first_token_seconds"].labels(*gen_ai).observe(
            record.first_token_seconds
        )
        tokens_after_first = (record.completion_tokens or 0) - 1
        if tokens_after_first > 0:
            seconds = (record.duration_seconds - record.first_token_seconds) / tokens_after_first
            self._histograms["gen_ai_server_time_per_output_token_seconds"].labels(*gen_ai).observe(seconds)

    def _count_tokens(self, record: CallRecord, token_type: str, count: int | None) -> None:
        if count is None:
            return
        model = self._model_label(record.model)
        self._histograms["llamarpc_request_tokens"].labels(model, token_type).observe(count)
        if self._label_callers and record.caller is not None:
            caller = self._caller_label(record.caller)
            self._counters["llamarpc_caller_tokens_total"].labels(caller, token_type).inc(count)

    def _model_label(self, model: str | None) -> str:
        if model is None:
            return ""
        return model if model == self._model else OTHER

    def _caller_label(self, caller: str) -> str:
        if caller not in self._callers and len(self._callers) < MAX_CALLERS:
            # One name that can't be written as UTF-8 would spoil the whole page.
            self._callers[caller] = caller.encode(errors="replace").decode()
        return self._callers.get(caller, OTHER)

    def _start_at_zero(self) -> None:
        """Series that begin with their first event hide it from `rate()`, which sees increases only."""
        for method in METHODS:
            self._counters["grpc_server_call_started_total"].labels(_method_label(method))
        for reason in REFUSALS:
            self._counters["llamarpc_refusals_total"].labels(reason)
        for reason in FINISH_REASONS:
            self._counters["llamarpc_finish_reasons_total"].labels(reason)


def merged_registry(folder: Path) -> CollectorRegistry:
    """The sums of all processes that keep their numbers in `folder`. Raises ValueError where it is no folder."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return registry


def _method_label(method: str) -> str:
    # Method names come from callers; gRFC A66 has this word for those that the server does not know.
    return method[1:] if method in METHODS else OTHER


def _counter(spec: MetricSpec, registry: CollectorRegistry) -> Counter:
    return Counter(spec.name, spec.meaning, spec.labels, registry=registry)


def _gauge(spec: MetricSpec, registry: CollectorRegistry) -> Gauge:
    return Gauge(spec.name, spec.meaning, spec.labels, registry=registry, multiprocess_mode=spec.merged_by)


def _histogram(spec: MetricSpec, registry: CollectorRegistry) -> Histogram:
    return Histogram(spec.name, spec.meaning, spec.labels, registry=registry, buckets=spec.buckets)
