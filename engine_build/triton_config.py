"""Writes config.pbtxt: the engine contract as Triton's own ModelConfig message, printed by protobuf's text format.

Knows no engine but by what it is handed: backend name and parameters. No string templates, so what is written always
parses.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from .contract import INPUTS, MODEL_NAME, OUTPUTS, TensorSpec


def cpu_model_config(
    *,
    gguf: str,
    parallel_requests: int,
    context_length: int,
    threads: int,
    prefill_chunk: int,
    adapters: Mapping[int, str] | None = None,
) -> model_config_pb2.ModelConfig:
    """Configuration of the CPU engine (llama.cpp in Triton's Python backend). `adapters`: files by task id."""
    return _model_config(
        backend="python",
        # Upstream's tensors have a batch dimension, which Triton adds only where this is at least 1. More would be of
        # no use: the engine batches the requests in flight by itself.
        max_batch_size=1,
        parameters={
            # File name of the weights, beside the model's code.
            "gguf": gguf,
            # Requests that generate at the same time; later ones wait. Memory for keys and values grows with it.
            "parallel_requests": str(parallel_requests),
            # Tokens of prompt and reply together, for each request.
            "context_length": str(context_length),
            # Threads that compute; 0 = as many as the process may use cores.
            "threads": str(threads),
            # Prompt tokens computed in one step, at most: the engine takes fewer where a step would hold running
            # streams up for too long. Memory for intermediate results grows with it.
            "prefill_chunk": str(prefill_chunk),
            **_adapter_parameter(adapters or {}),
        },
    )


def _adapter_parameter(adapters: Mapping[int, str]) -> dict[str, str]:
    """LoRA adapters by task id, beside the weights. Left out where there are none, as in older bundles."""
    if not adapters:
        return {}
    return {"lora_adapters": ",".join(f"{task_id}={file}" for task_id, file in adapters.items())}


def to_text(config: model_config_pb2.ModelConfig) -> str:
    """The text of a config.pbtxt."""
    text: str = text_format.MessageToString(config)
    return text


def _model_config(*, backend: str, max_batch_size: int, parameters: Mapping[str, str]) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig(name=MODEL_NAME, backend=backend, max_batch_size=max_batch_size)
    config.model_transaction_policy.decoupled = True  # several responses for one request: streaming
    config.input.extend(_model_input(spec) for spec in INPUTS)
    config.output.extend(_model_output(spec) for spec in OUTPUTS)
    config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


def _model_input(spec: TensorSpec) -> model_config_pb2.ModelInput:
    message = model_config_pb2.ModelInput(
        name=spec.name,
        data_type=model_config_pb2.DataType.Value(spec.data_type),
        dims=spec.dims,
        optional=spec.optional,
        allow_ragged_batch=spec.ragged,
    )
    if spec.scalar:
        message.reshape.SetInParent()  # present and empty: [1] reaches the model as a scalar
    return message


def _model_output(spec: TensorSpec) -> model_config_pb2.ModelOutput:
    return model_config_pb2.ModelOutput(
        name=spec.name, data_type=model_config_pb2.DataType.Value(spec.data_type), dims=spec.dims
    )
