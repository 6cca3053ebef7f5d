"""The metrics are those of the table, and each kind of call counts where it should."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from llamarpc.v1 import error_reason_pb2, model_pb2, text_generation_pb2
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from server import metrics as metrics_module
from server.call_record import CallRecord
from server.metric_specs import METRICS, metrics_table
from server.metrics import FINISH_REASONS, METHODS, REFUSALS, Load, Metrics, merged_registry

GENERATE = "/llamarpc.v1.TextGenerationService/Generate"
GEN_AI = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "llamarpc", "gen_ai_request_model": "llama"}
ANSWERED = CallRecord(
    method=GENERATE,
    request_id="r-1",
    status="OK",
    caller="alice",
    model="llama",
    prompt_tokens=10,
    completion_tokens=5,
    finish_reason="STOP",
    queue_seconds=0.02,
    first_token_seconds=0.5,
    duration_seconds=2.5,
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(model="llama", version="1.2.3", label_callers=True)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def end(metrics: Metrics, record: CallRecord) -> None:
    metrics.call_started(record.method)
    metrics.call_ended(record)


def test_the_registry_holds_the_table(metrics: Metrics) -> None:
    end(metrics, ANSWERED)
    families = {each.name: each for each in text_string_to_metric_families(generate_latest(metrics.registry).decode())}
    assert set(families) == {spec.name.removesuffix("_total") for spec in METRICS}
    for spec in METRICS:
        family = families[spec.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (spec.kind, spec.meaning)
        assert {label for sample in family.samples for label in sample.labels} - {"le"} <= set(spec.labels)


def test_names_follow_the_conventions() -> None:
    for spec in METRICS:
        assert spec.name.endswith("_total") == (spec.kind == "counter")
        assert (spec.kind == "histogram") == bool(spec.buckets)
        assert list(spec.buckets) == sorted(set(spec.buckets))
    assert len({spec.name for spec in METRICS}) == len(METRICS)


def test_the_markdown_table_has_a_row_for_each() -> None:
    lines = metrics_table().splitlines()
    assert len(lines) == len(METRICS) + 2
    assert all(line.count("|") == 5 for line in lines)


def test_methods_and_reasons_are_those_of_the_contract() -> None:
    services: list[ServiceDescriptor] = [
        *text_generation_pb2.DESCRIPTOR.services_by_name.values(),
        *model_pb2.DESCRIPTOR.services_by_name.values(),
    ]
    assert set(METHODS) == {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    reasons = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118
    assert {*REFUSALS, "SLOW_READER"} <= reasons
    finishes = {name.removeprefix("FINISH_REASON_") for name in text_generation_pb2.FinishReason.keys()}  # noqa: SIM118
    assert set(FINISH_REASONS) == finishes - {"UNSPECIFIED"}


def test_an_answer_counts_everywhere(metrics: Metrics) -> None:
    end(metrics, ANSWERED)
    method = GENERATE[1:]
    assert value(metrics, "grpc_server_call_started_total", grpc_method=method) == 1
    assert value(metrics, "grpc_server_call_duration_seconds_sum", grpc_method=method, grpc_status="OK") == 2.5
    assert value(metrics, "gen_ai_server_request_duration_seconds_sum", **GEN_AI, error_type="") == 2.5
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_sum", **GEN_AI) == 0.5
    assert value(metrics, "gen_ai_server_time_per_output_token_seconds_sum", **GEN_AI) == 0.5
    assert value(metrics, "llamarpc_queue_seconds_sum") == 0.02
    assert value(metrics, "llamarpc_finish_reasons_total", finish_reason="STOP") == 1
    for kind, count in (("input", 10), ("output", 5)):
        labels = {"gen_ai_request_model": "llama", "gen_ai_token_type": kind}
        assert value(metrics, "llamarpc_request_tokens_sum", **labels) == count
        assert value(metrics, "llamarpc_caller_tokens_total", caller="alice", type=kind) == count


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"completion_tokens": 1}, 0),
        ({"completion_tokens": 0, "first_token_seconds": None}, 0),
        ({"completion_tokens": 2}, 1),
        ({"status": "CANCELLED", "finish_reason": None}, 0),
        ({"status": "ABORTED", "reason": "SLOW_READER", "finish_reason": None}, 0),
    ],
)
def test_speed_is_that_of_answers_with_two_tokens(
    metrics: Metrics, changes: dict[str, object], expected: float
) -> None:
    end(metrics, replace(ANSWERED, **changes))
    assert (value(metrics, "gen_ai_server_time_per_output_token_seconds_count", **GEN_AI) or 0) == expected


def test_a_failure_keeps_its_reason_and_its_tokens(metrics: Metrics) -> None:
    end(metrics, replace(ANSWERED, status="INTERNAL", reason="ENGINE_FAILED", finish_reason=None))
    assert value(metrics, "gen_ai_server_request_duration_seconds_count", **GEN_AI, error_type="ENGINE_FAILED") == 1
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_count", **GEN_AI) is None
    labels = {"gen_ai_request_model": "llama", "gen_ai_token_type": "output"}
    assert value(metrics, "llamarpc_request_tokens_sum", **labels) == 5


def test_a_hung_up_call_is_named_by_its_status(metrics: Metrics) -> None:
    end(metrics, replace(ANSWERED, status="CANCELLED", finish_reason=None))
    assert value(metrics, "gen_ai_server_request_duration_seconds_count", **GEN_AI, error_type="CANCELLED") == 1


@pytest.mark.parametrize("reason", REFUSALS)
def test_refusals_are_counted_by_reason(metrics: Metrics, reason: str) -> None:
    assert value(metrics, "llamarpc_refusals_total", reason=reason) == 0
    end(metrics, CallRecord(method=GENERATE, request_id="", status="X", reason=reason, duration_seconds=0.001))
    assert value(metrics, "llamarpc_refusals_total", reason=reason) == 1


def test_slow_readers_and_resumes(metrics: Metrics) -> None:
    end(metrics, replace(ANSWERED, status="ABORTED", reason="SLOW_READER", finish_reason=None))
    metrics.resumed()
    assert value(metrics, "llamarpc_slow_readers_total") == 1
    assert value(metrics, "llamarpc_resumes_total") == 1


def load(*, running: int = 0, ready: bool = False) -> Load:
    return Load(calls_in_flight=running + 5, requests_running=running, requests_waiting=4, engine_ready=ready)


def test_gauges_show_the_load(metrics: Metrics) -> None:
    assert value(metrics, "llamarpc_engine_ready") == 0
    metrics.set_load(load(running=3, ready=True))
    names = ("calls_in_flight", "requests_running", "requests_waiting", "engine_ready")
    assert [value(metrics, f"llamarpc_{name}") for name in names] == [8, 3, 4, 1]


async def test_gauges_follow_the_load(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "_SAMPLE_SECONDS", 0)
    loads = iter([load(running=1), load(running=2)])
    with pytest.raises(RuntimeError, match="StopIteration"):
        await metrics.follow(lambda: next(loads))
    assert value(metrics, "llamarpc_requests_running") == 2


def test_other_methods_generate_nothing(metrics: Metrics) -> None:
    end(metrics, replace(ANSWERED, method="/llamarpc.v1.TextGenerationService/CountTokens"))
    page = generate_latest(metrics.registry).decode()
    assert "gen_ai_server_request_duration_seconds_count" not in page
    assert "llamarpc_request_tokens_count" not in page


def test_what_callers_choose_becomes_no_label(metrics: Metrics) -> None:
    end(metrics, replace(ANSWERED, method="/made.Up/Method", status="UNIMPLEMENTED"))
    end(metrics, replace(ANSWERED, model="made-up"))
    end(metrics, replace(ANSWERED, model=None))
    page = generate_latest(metrics.registry).decode()
    assert "made" not in page.lower()
    assert value(metrics, "grpc_server_call_started_total", grpc_method="other") == 1
    models = {"gen_ai_request_model": "other"}, {"gen_ai_request_model": ""}
    for labels in models:
        assert value(metrics, "llamarpc_request_tokens_count", **labels, gen_ai_token_type="input") == 1


def test_callers_are_a_label_only_where_asked_and_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Metrics(model="llama", version="1")
    end(silent, ANSWERED)
    assert "alice" not in generate_latest(silent.registry).decode()
    monkeypatch.setattr(metrics_module, "MAX_CALLERS", 2)
    metrics = Metrics(model="llama", version="1", label_callers=True)
    for caller in ("a", "b\ud800", "c", "d", "a"):
        end(metrics, replace(ANSWERED, caller=caller))
    end(metrics, replace(ANSWERED, caller=None))
    told = {caller: value(metrics, "llamarpc_caller_tokens_total", caller=caller, type="input") for caller in "abcd"}
    assert told == {"a": 20, "b": None, "c": None, "d": None}
    assert value(metrics, "llamarpc_caller_tokens_total", caller="b?", type="input") == 10
    assert value(metrics, "llamarpc_caller_tokens_total", caller="other", type="input") == 20
    assert generate_latest(metrics.registry)


_WORKER = """
from tests.server.test_metrics import ANSWERED, end
from server.metrics import Load, Metrics
metrics = Metrics(model="llama", version="1.2.3")
end(metrics, ANSWERED)
metrics.call_started(ANSWERED.method)
metrics.set_load(Load(calls_in_flight=1, requests_running=2, requests_waiting=0, engine_ready={ready}))
"""


def test_several_processes_add_up(tmp_path: Path) -> None:
    """Also with different views of the engine: ready means ready for all."""
    for ready in (True, False):
        subprocess.run(
            [sys.executable, "-c", _WORKER.format(ready=ready)],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
        )
    get = merged_registry(tmp_path).get_sample_value
    assert get("grpc_server_call_started_total", {"grpc_method": GENERATE[1:]}) == 4
    assert get("gen_ai_server_request_duration_seconds_count", {**GEN_AI, "error_type": ""}) == 2
    assert get("llamarpc_calls_in_flight", {}) == 2
    assert get("llamarpc_requests_running", {}) == 4
    assert get("llamarpc_engine_ready", {}) == 0
    names = {family.name for family in merged_registry(tmp_path).collect()}
    assert names <= {spec.name.removesuffix("_total") for spec in METRICS}


def test_merging_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a directory"):
        merged_registry(tmp_path / "nothing")
