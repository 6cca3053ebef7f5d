"""The start-up check: the stock configuration fits, and every kind of difference is told in one sentence."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from server.triton.contract import differences
from server.triton.tensors import INPUTS, OPTIONAL_INPUTS, OUTPUTS
from tests.fakes import TENSORRT_LLM_CONFIG, tensorrt_llm_config


def changed(old: str, new: str) -> ModelConfig:
    assert TENSORRT_LLM_CONFIG.count(old) == 1
    return text_format.Parse(TENSORRT_LLM_CONFIG.replace(old, new), ModelConfig())


def without(name: str) -> ModelConfig:
    lines = [line for line in TENSORRT_LLM_CONFIG.splitlines() if f'name: "{name}"' not in line]
    return text_format.Parse("\n".join(lines), ModelConfig())


def test_stock_configuration_fits() -> None:
    assert differences(tensorrt_llm_config(), context_length=8192) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "decoupled: true",
            "decoupled: false",
            "the model is not decoupled (model_transaction_policy), so it can't stream",
        ),
        (
            "max_batch_size: 64",
            "max_batch_size: 0",
            "max_batch_size is 0; it must be at least 1, as tensors have a batch dimension",
        ),
        (
            'name: "seed" data_type: TYPE_UINT64',
            'name: "seed" data_type: TYPE_INT64',
            "input seed is INT64, this server uses UINT64",
        ),
        (
            'name: "output_ids" data_type: TYPE_INT32',
            'name: "output_ids" data_type: TYPE_INT64',
            "output output_ids is INT64, this server uses INT32",
        ),
        (
            "dims: [2, -1]",
            "dims: [1, -1]",
            "input stop_words_list has dimensions [1, -1], this server uses [2, -1]",
        ),
        (
            'name: "sequence_length" data_type: TYPE_INT32 dims: -1',
            'name: "sequence_length" data_type: TYPE_INT32 dims: [-1, 1]',
            "output sequence_length has dimensions [-1, 1], this server uses [-1]",
        ),
        (
            'name: "lora_task_id" data_type: TYPE_UINT64 dims: 1 reshape { } optional: true',
            'name: "lora_task_id" data_type: TYPE_UINT64 dims: 1 reshape { }',
            "input lora_task_id is required by the model, but this server does not always send it",
        ),
        (
            "dims: [2, -1] allow_ragged_batch: true optional: true",
            "dims: [2, -1] allow_ragged_batch: true",
            "input stop_words_list is required by the model, but this server does not always send it",
        ),
    ],
)
def test_one_sentence_per_difference(old: str, new: str, expected: str) -> None:
    assert differences(changed(old, new), context_length=8192) == [expected]


@pytest.mark.parametrize("name", [*INPUTS, *OUTPUTS])
def test_missing_tensors(name: str) -> None:
    kind = "input" if name in INPUTS else "output"
    assert differences(without(name), context_length=8192) == [f"{kind} {name} is not declared by the model"]


def test_required_tensors_that_are_always_sent() -> None:
    config = tensorrt_llm_config()
    for tensor in config.input:
        tensor.optional = tensor.name in OPTIONAL_INPUTS
    assert differences(config, context_length=8192) == []


def test_another_model_altogether() -> None:
    found = differences(ModelConfig(), context_length=8192)
    assert len(found) == 2 + len(INPUTS) + len(OUTPUTS)
