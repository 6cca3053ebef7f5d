"""The server and engine_build, which share no code, mean the same tensors."""

from __future__ import annotations

from engine_build import contract, triton_config
from server.triton import tensors
from server.triton.contract import differences


def test_the_server_sends_and_reads_what_engine_build_declares() -> None:
    declared = {spec.name: spec for spec in (*contract.INPUTS, *contract.OUTPUTS)}
    for name, expected in {**tensors.INPUTS, **tensors.OUTPUTS}.items():
        assert declared[name].data_type == f"TYPE_{expected.datatype}", name
        assert declared[name].dims == expected.dims, name
    required = {spec.name for spec in contract.INPUTS if not spec.optional}
    assert required <= set(tensors.INPUTS)


def test_a_model_of_engine_builds_has_no_differences() -> None:
    config = triton_config.cpu_model_config(
        gguf="model.gguf", parallel_requests=8, context_length=8192, threads=0, prefill_chunk=64
    )
    assert differences(config) == []
