"""What the server measures: one table, from which the metrics are created and which the README shows.

Names follow gRPC's metrics (gRFC A66) and OpenTelemetry's conventions for generative AI in Prometheus spelling, and
begin with `llamarpc_` where neither has a name. Knows nothing of how they are counted (`metrics.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Boundaries in seconds (tokens for _TOKENS). Those of GenAI are the conventions' own. gRFC A66 lists 41; these are the
# 1-2-5 steps among them and three more, since calls here take seconds and may take minutes.
_CALL_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_REQUEST_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_PER_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_QUEUE_SECONDS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)

_GEN_AI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One metric. `merged_by` says how gauges of several processes become one."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...] = ()
    meaning: str
    buckets: tuple[float, ...] = ()
    merged_by: Literal["livesum", "livemin", "livemax"] = "livesum"


METRICS = (
    MetricSpec(
        name="grpc_server_call_started_total",
        kind="counter",
        labels=("grpc_method",),
        meaning="calls begun, also those that have not ended",
    ),
    MetricSpec(
        name="grpc_server_call_duration_seconds",
        kind="histogram",
        labels=("grpc_method", "grpc_status"),
        meaning="time from a call's arrival to its status",
        buckets=_CALL_SECONDS,
    ),
    MetricSpec(
        name="gen_ai_server_request_duration_seconds",
        kind="histogram",
        labels=(*_GEN_AI, "error_type"),
        meaning="time that a request for text took; `error_type` is the reason of failed ones, else empty",
        buckets=_REQUEST_SECONDS,
    ),
    MetricSpec(
        name="gen_ai_server_time_to_first_token_seconds",
        kind="histogram",
        labels=_GEN_AI,
        meaning="time from a request's arrival to its first token, of successful requests",
        buckets=_FIRST_TOKEN_SECONDS,
    ),
    MetricSpec(
        name="gen_ai_server_time_per_output_token_seconds",
        kind="histogram",
        labels=_GEN_AI,
        meaning="time per token after the first, of successful requests",
        buckets=_PER_TOKEN_SECONDS,
    ),
    MetricSpec(
        name="llamarpc_request_tokens",
        kind="histogram",
        labels=("gen_ai_request_model", "gen_ai_token_type"),
        meaning="tokens of a request, prompt (`input`) and answer (`output`), also where it failed half-way",
        buckets=_TOKENS,
    ),
    MetricSpec(
        name="llamarpc_caller_tokens_total",
        kind="counter",
        labels=("caller", "type"),
        meaning="tokens by caller, `input` and `output`; only with `--metrics-callers`",
    ),
    MetricSpec(
        name="llamarpc_finish_reasons_total",
        kind="counter",
        labels=("finish_reason",),
        meaning="complete answers by the reason of their end",
    ),
    MetricSpec(name="llamarpc_calls_in_flight", kind="gauge", meaning="calls begun and not ended, of all methods"),
    MetricSpec(name="llamarpc_requests_running", kind="gauge", meaning="requests that the engine works on"),
    MetricSpec(name="llamarpc_requests_waiting", kind="gauge", meaning="requests that wait for the engine"),
    MetricSpec(
        name="llamarpc_queue_seconds",
        kind="histogram",
        meaning="wait for the engine, of requests that got to it",
        buckets=_QUEUE_SECONDS,
    ),
    MetricSpec(
        name="llamarpc_refusals_total",
        kind="counter",
        labels=("reason",),
        meaning="calls turned away: no room, a limit, no valid token, a server that stops",
    ),
    MetricSpec(
        name="llamarpc_resumes_total", kind="counter", meaning="answers continued after the engine's connection broke"
    ),
    MetricSpec(
        name="llamarpc_slow_readers_total", kind="counter", meaning="answers ended because the caller did not read them"
    ),
    MetricSpec(
        name="llamarpc_engine_ready", kind="gauge", meaning="1 while the engine is ready, else 0", merged_by="livemin"
    ),
    MetricSpec(
        name="llamarpc_build_info",
        kind="gauge",
        labels=("version", "python", "model"),
        meaning="always 1; its labels say what runs",
        merged_by="livemax",
    ),
)
"""All metrics. The README's table is `metrics_table()`."""


def metrics_table() -> str:
    """The table of METRICS in Markdown."""
    rows = [f"| `{each.name}` | {each.kind} | {_listed(each.labels)} | {each.meaning} |" for each in METRICS]
    return "\n".join(["| metric | type | labels | what it tells |", "| --- | --- | --- | --- |", *rows])


def _listed(labels: tuple[str, ...]) -> str:
    return ", ".join(f"`{label}`" for label in labels)
