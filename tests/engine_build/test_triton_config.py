from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from engine_build.contract import INPUTS, OUTPUTS
from engine_build.triton_config import cpu_model_config, to_text

_CONFIG = cpu_model_config(gguf="model.gguf", parallel_requests=3, context_length=99, threads=0, prefill_chunk=7)


def test_the_text_parses_to_the_same_message() -> None:
    assert text_format.Parse(to_text(_CONFIG), model_config_pb2.ModelConfig()) == _CONFIG


def test_the_model_streams_on_a_cpu_in_the_python_backend() -> None:
    assert (_CONFIG.name, _CONFIG.backend, _CONFIG.max_batch_size) == ("tensorrt_llm", "python", 1)
    assert _CONFIG.model_transaction_policy.decoupled
    assert [(group.count, group.kind) for group in _CONFIG.instance_group] == [
        (1, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    ]


def test_parameters_are_strings() -> None:
    assert {key: value.string_value for key, value in _CONFIG.parameters.items()} == {
        "gguf": "model.gguf",
        "parallel_requests": "3",
        "context_length": "99",
        "threads": "0",
        "prefill_chunk": "7",
    }


def test_adapters_are_a_parameter_where_there_are_any() -> None:
    config = cpu_model_config(
        gguf="m.gguf",
        parallel_requests=1,
        context_length=9,
        threads=0,
        prefill_chunk=1,
        adapters={1: "lora-1.gguf", 2: "lora-2.gguf"},
    )
    assert config.parameters["lora_adapters"].string_value == "1=lora-1.gguf,2=lora-2.gguf"
    assert "lora_adapters" not in _CONFIG.parameters


def test_inputs_follow_the_contract() -> None:
    for message, spec in zip(_CONFIG.input, INPUTS, strict=True):
        data_type = model_config_pb2.DataType.Name(message.data_type)
        assert (message.name, data_type, tuple(message.dims)) == (spec.name, spec.data_type, spec.dims)
        assert (message.optional, message.allow_ragged_batch) == (spec.optional, spec.ragged)
        assert message.HasField("reshape") == spec.scalar
        assert not message.reshape.shape


def test_outputs_follow_the_contract() -> None:
    assert [(m.name, tuple(m.dims)) for m in _CONFIG.output] == [(spec.name, spec.dims) for spec in OUTPUTS]
