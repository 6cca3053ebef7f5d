"""The server and engine_build, which share no code, mean the same tensors and the same prompt formats."""

from __future__ import annotations

import pytest

import engine_build.prompt_formats
import server.chat.prompt_formats
from engine_build import contract, triton_config
from server.chat.model import Conversation, Message, Role
from server.chat.prompt_formats import Special
from server.triton import tensors
from server.triton.contract import differences


def test_the_server_sends_and_reads_what_engine_build_declares() -> None:
    declared = {spec.name: spec for spec in (*contract.INPUTS, *contract.OUTPUTS)}
    for name, expected in {**tensors.INPUTS, **tensors.OUTPUTS}.items():
        # KServe calls strings BYTES, the configuration of a model STRING.
        assert declared[name].data_type.replace("STRING", "BYTES") == f"TYPE_{expected.datatype}", name
        assert declared[name].dims == expected.dims, name
    required = {spec.name for spec in contract.INPUTS if not spec.optional}
    assert required <= set(tensors.INPUTS)


def test_a_model_of_engine_builds_has_no_differences() -> None:
    config = triton_config.cpu_model_config(
        gguf="model.gguf", parallel_requests=8, context_length=8192, threads=0, prefill_chunk=64
    )
    assert differences(config, context_length=8192) == []


def test_a_model_with_a_smaller_context_does_not_fit() -> None:
    config = triton_config.cpu_model_config(
        gguf="model.gguf", parallel_requests=8, context_length=4096, threads=0, prefill_chunk=64
    )
    assert differences(config, context_length=8192) == ["the model's context holds 4096 tokens, the bundle says 8192"]


CONVERSATIONS = (
    (("user", "Hi"),),
    (("system", " Be brief.\n"), ("user", "\n Two lines,\n\none blank \n")),
    (("user", "a"), ("assistant", " b\t!"), ("user", "🦙"), ("assistant", ""), ("user", "c")),
)


def test_both_know_the_same_prompt_formats() -> None:
    assert set(engine_build.prompt_formats.PROMPT_FORMATS) == set(server.chat.prompt_formats.PROMPT_FORMATS)


@pytest.mark.parametrize("name", sorted(server.chat.prompt_formats.PROMPT_FORMATS))
@pytest.mark.parametrize("turns", CONVERSATIONS, ids=["one", "system", "several"])
def test_the_proved_text_is_the_rendered_text(name: str, turns: tuple[tuple[str, str], ...]) -> None:
    """What engine_build compares a model's template with is what the server makes of the same conversation."""
    conversation = Conversation(messages=tuple(Message(role=Role(role), content=text) for role, text in turns))
    segments = server.chat.prompt_formats.PROMPT_FORMATS[name].segments(conversation, default_system_prompt="")
    rendered = "".join(each.token if isinstance(each, Special) else each.text for each in segments)
    assert rendered == engine_build.prompt_formats.PROMPT_FORMATS[name].text(turns)
