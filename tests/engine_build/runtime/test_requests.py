"""Tensors in, a checked request out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine_build.contract import INPUTS
from engine_build.llama_cpp.runtime.errors import RequestError
from engine_build.llama_cpp.runtime.requests import (
    KNOWN_TENSORS,
    GenerationRequest,
    Limits,
    Sampling,
    generation_request_from_tensors,
    is_stop_command,
)

LIMITS = Limits(vocabulary_size=100, context_length=20)
REQUIRED = {"input_ids": [[1, 2, 3]], "input_lengths": [3], "request_output_len": [5]}
_TYPES: dict[str, Any] = {
    "TYPE_INT32": np.int32,
    "TYPE_UINT64": np.uint64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_BOOL": np.bool_,
    "TYPE_STRING": np.object_,
}


def tensors(**values: Any) -> dict[str, NDArray[Any]]:
    types = {spec.name: _TYPES[spec.data_type] for spec in INPUTS}
    given = {**REQUIRED, **values}
    return {name: np.array(value, types.get(name, np.int32)) for name, value in given.items() if value is not None}


def read(**values: Any) -> GenerationRequest:
    return generation_request_from_tensors(tensors(**values), LIMITS)


def test_least_request_has_upstreams_defaults() -> None:
    assert read() == GenerationRequest(prompt=(1, 2, 3), max_new_tokens=5)
    assert read().sampling.is_greedy


def test_every_tensor_of_the_contract_is_known() -> None:
    assert {spec.name for spec in INPUTS} == KNOWN_TENSORS


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        ({"request_output_len": [500]}, "max_new_tokens", 17),
        ({"end_id": [-1]}, "end_id", -1),
        ({"end_id": [99]}, "end_id", 99),
        ({"min_tokens": [4]}, "min_tokens", 4),
        ({"stop_words_list": [[[7, 8], [1, 2]]]}, "stop_words", ((7,), (8,))),
        ({"bad_words_list": [[[7, 8], [2, -1]]]}, "bad_words", ((7, 8),)),
        ({"streaming": [True]}, "streaming", True),
        ({"exclude_input_in_output": [True]}, "exclude_input", True),
        ({"return_log_probs": [True]}, "log_probs", True),
        ({"return_num_input_tokens": [True]}, "count_input", True),
        ({"return_num_output_tokens": [True]}, "count_output", True),
        ({"temperature": [0.5]}, "sampling", Sampling(temperature=0.5)),
        ({"runtime_top_k": [0]}, "sampling", Sampling()),
        ({"runtime_top_k": [7]}, "sampling", Sampling(top_k=7)),
        ({"runtime_top_p": [1.0]}, "sampling", Sampling(top_p=1.0)),
        ({"seed": [2**64 - 1]}, "sampling", Sampling(seed=2**64 - 1)),
        ({"repetition_penalty": [1.5]}, "sampling", Sampling(repetition_penalty=1.5)),
        ({"presence_penalty": [-2]}, "sampling", Sampling(presence_penalty=-2.0)),
        ({"frequency_penalty": [2]}, "sampling", Sampling(frequency_penalty=2.0)),
    ],
)
def test_reads(values: dict[str, Any], field: str, expected: object) -> None:
    assert getattr(read(**values), field) == expected


@pytest.mark.parametrize(
    ("values", "greedy"),
    [
        ({"temperature": 2.0}, True),
        ({"top_k": 1}, True),
        ({"top_k": 1, "top_p": 0.9}, True),
        ({"top_k": 2}, False),
        ({"top_p": 1.0}, False),
        ({"top_p": 0.5, "temperature": 0.0}, True),
    ],
)
def test_greedy_unless_top_k_or_top_p(values: dict[str, Any], greedy: bool) -> None:
    assert Sampling(**values).is_greedy is greedy


NEUTRAL: dict[str, Any] = {
    "beam_width": [1],
    "num_return_sequences": [1],
    "runtime_top_p_decay": [1.0],
    "runtime_top_p_min": [1e-6],
    "runtime_top_p_reset_ids": [0],
    "embedding_bias": [[]],
    "draft_input_ids": [[]],
    "lora_weights": np.zeros((1, 0, 0)),
    "lora_config": np.zeros((1, 0, 3)),
    "guided_decoding_guide_type": [[b""]],
    "guided_decoding_guide": [[b""]],
    "return_context_logits": [False],
    "return_generation_logits": [False],
    "return_perf_metrics": [False],
    "len_penalty": [1.0],
    "early_stopping": [False],
    "beam_search_diversity_rate": [0.0],
    "pad_id": [2],
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_values_are_taken(name: str) -> None:
    assert read(**{name: NEUTRAL[name]}) == read()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"input_ids": None}, "input_ids is not present in the request"),
        ({"input_lengths": None}, "input_lengths is not present in the request"),
        ({"request_output_len": None}, "request_output_len is not present in the request"),
        ({"input_lengths": [2]}, "input_lengths is 2, but input_ids holds 3 ids"),
        ({"input_ids": [[]], "input_lengths": [0]}, "input_ids is empty"),
        ({"input_ids": [[1, 100, 3]]}, "input_ids holds the id 100 at position 1, outside [0, 99]"),
        ({"input_ids": [[1, 2, -1]]}, "input_ids holds the id -1 at position 2, outside [0, 99]"),
        (
            {"input_ids": [[1] * 20], "input_lengths": [20]},
            "Prompt length (20) exceeds maximum input length (19)",
        ),
        ({"request_output_len": [0]}, "request_output_len is 0, outside [1, 2147483647]"),
        ({"end_id": [-2]}, "end_id is -2, outside [-1, 99]"),
        ({"end_id": [100]}, "end_id is 100, outside [-1, 99]"),
        ({"pad_id": [100]}, "pad_id is 100, outside [-1, 99]"),
        ({"temperature": [-0.5]}, "temperature is -0.5, outside [0, inf)"),
        ({"temperature": [float("nan")]}, "temperature is nan, outside [0, inf)"),
        ({"temperature": [float("inf")]}, "temperature is inf, outside [0, inf)"),
        ({"runtime_top_k": [-1]}, "runtime_top_k is -1, outside [0, 2147483647]"),
        ({"runtime_top_p": [0.0]}, "runtime_top_p is 0, outside (0, 1]"),
        ({"runtime_top_p": [1.5]}, "runtime_top_p is 1.5, outside (0, 1]"),
        ({"runtime_top_p_min": [2.0]}, "runtime_top_p_min is 2, outside [0, 1]"),
        ({"repetition_penalty": [0.0]}, "repetition_penalty is 0, outside (0, inf)"),
        ({"presence_penalty": [float("nan")]}, "presence_penalty is nan, outside (-inf, inf)"),
        ({"min_tokens": [-1]}, "min_tokens is -1, outside [0, 2147483647]"),
        ({"seed": [1, 2]}, "seed has shape [2]; it must hold one value"),
        ({"beam_width": [2]}, "beam_width cannot be honoured"),
        ({"num_return_sequences": [2]}, "num_return_sequences cannot be honoured"),
        ({"runtime_top_p_decay": [0.9]}, "runtime_top_p_decay cannot be honoured"),
        ({"embedding_bias": [[0.0]]}, "embedding_bias cannot be honoured"),
        ({"draft_input_ids": [[1]]}, "draft_input_ids cannot be honoured"),
        ({"lora_task_id": [0]}, "lora_task_id is 0; this bundle has no LoRA adapters"),
        ({"lora_weights": [[[1.0]]]}, "lora_weights cannot be honoured"),
        ({"lora_config": [[[0, 0, 8]]]}, "lora_config cannot be honoured"),
        ({"return_context_logits": [True]}, "return_context_logits cannot be honoured"),
        ({"return_generation_logits": [True]}, "return_generation_logits cannot be honoured"),
        ({"return_perf_metrics": [True]}, "return_perf_metrics cannot be honoured"),
        ({"min_p": [0.5]}, "min_p is not supported"),
    ],
)
def test_refuses(values: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(**values)
    assert text in str(caught.value)


@pytest.mark.parametrize("adapter", [1, 2, 2**64 - 1])
def test_adapters_of_the_bundle_are_taken(adapter: int) -> None:
    limits = replace(LIMITS, adapters=frozenset({1, 2, 2**64 - 1}))
    assert generation_request_from_tensors(tensors(lora_task_id=[adapter]), limits).adapter == adapter
    assert generation_request_from_tensors(tensors(), limits).adapter is None


@pytest.mark.parametrize(("adapter", "value"), [(7, [7]), (0, [0]), (2**64 - 1, [[2**64 - 1]])])
def test_other_adapters_are_refused(adapter: int, value: Any) -> None:
    limits = replace(LIMITS, adapters=frozenset({2, 1}))
    with pytest.raises(RequestError, match=f"^lora_task_id is {adapter}; this bundle has 1, 2$"):
        generation_request_from_tensors(tensors(lora_task_id=value), limits)


def test_stop_command() -> None:
    assert is_stop_command(tensors(stop=[True]))
    assert not is_stop_command(tensors(stop=[False]))
    assert not is_stop_command(tensors())
