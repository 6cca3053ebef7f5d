"""Compares the model that Triton serves with what this server sends and reads, and names every difference.

Knows the declared tensors only; what to do about a difference is for the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInput, ModelOutput

from .tensors import INPUTS, OPTIONAL_INPUTS, OUTPUTS, TensorType

# All that a request must carry anyway; a model that requires more would refuse every request.
_ALWAYS_SENT = frozenset(INPUTS) - OPTIONAL_INPUTS


def differences(config: ModelConfig, *, context_length: int) -> list[str]:
    """One sentence per difference that would make requests fail or answers untrue; none where the model fits.

    `context_length` is what the bundle says, in tokens: a model that takes less would cut answers without a word.
    """
    return [
        *_transaction_differences(config),
        *_context_differences(config, context_length),
        *_tensor_differences("input", INPUTS, config.input),
        *_tensor_differences("output", OUTPUTS, config.output),
        *(
            f"input {tensor.name} is required by the model, but this server does not always send it"
            for tensor in config.input
            if not tensor.optional and tensor.name not in _ALWAYS_SENT
        ),
    ]


def _transaction_differences(config: ModelConfig) -> Iterator[str]:
    if not config.model_transaction_policy.decoupled:
        yield "the model is not decoupled (model_transaction_policy), so it can't stream"
    if config.max_batch_size < 1:
        yield f"max_batch_size is {config.max_batch_size}; it must be at least 1, as tensors have a batch dimension"


def _context_differences(config: ModelConfig, context_length: int) -> Iterator[str]:
    # The CPU engine says it in its parameters; TensorRT-LLM engines say it nowhere in the configuration.
    said = config.parameters["context_length"].string_value if "context_length" in config.parameters else ""
    if said.isdecimal() and int(said) < context_length:
        yield f"the model's context holds {said} tokens, the bundle says {context_length}"


def _tensor_differences(
    kind: str, expected: Mapping[str, TensorType], declared: Iterable[ModelInput | ModelOutput]
) -> Iterator[str]:
    by_name = {tensor.name: tensor for tensor in declared}
    for name, tensor_type in expected.items():
        tensor = by_name.get(name)
        if tensor is None:
            yield f"{kind} {name} is not declared by the model"
            continue
        datatype = DataType.Name(tensor.data_type).removeprefix("TYPE_").replace("STRING", "BYTES")
        if datatype != tensor_type.datatype:
            yield f"{kind} {name} is {datatype}, this server uses {tensor_type.datatype}"
        if tuple(tensor.dims) != tensor_type.dims:
            yield f"{kind} {name} has dimensions {list(tensor.dims)}, this server uses {list(tensor_type.dims)}"
