"""From events to output tensors."""

from __future__ import annotations

from engine_build.contract import OUTPUTS
from engine_build.llama_cpp.runtime.generation import Tokens
from engine_build.llama_cpp.runtime.replies import Reply
from engine_build.llama_cpp.runtime.requests import GenerationRequest


def reply(*, streaming: bool, **values: bool) -> Reply:
    return Reply(GenerationRequest(prompt=(7, 8, 9), max_new_tokens=5, streaming=streaming, **values))


def test_streaming_gives_each_events_ids_alone() -> None:
    stream = reply(streaming=True)
    first, last = stream.feed(Tokens(ids=(1,))), stream.feed(Tokens(ids=(2, 3), final=True))
    assert first is not None
    assert last is not None
    assert first["output_ids"].tolist() == [[[1]]]
    assert first["sequence_length"].tolist() == [[1]]
    assert last["output_ids"].tolist() == [[[2, 3]]]
    assert last["sequence_length"].tolist() == [[2]]


def test_an_empty_end_keeps_its_shape() -> None:
    tensors = reply(streaming=True, log_probs=True).feed(Tokens(final=True))
    assert tensors is not None
    assert tensors["output_ids"].shape == (1, 1, 0)
    assert tensors["output_log_probs"].shape == (1, 1, 0)
    assert tensors["sequence_length"].tolist() == [[0]]


def test_otherwise_one_response_with_the_prompt() -> None:
    whole = reply(streaming=False)
    assert whole.feed(Tokens(ids=(1,))) is None
    tensors = whole.feed(Tokens(ids=(2,), final=True))
    assert tensors is not None
    assert tensors["output_ids"].tolist() == [[[7, 8, 9, 1, 2]]]
    assert tensors["sequence_length"].tolist() == [[5]]


def test_everything_asked_for() -> None:
    whole = reply(streaming=False, exclude_input=True, log_probs=True, count_input=True, count_output=True)
    whole.feed(Tokens(ids=(1,), log_probs=(-0.5,), cumulative_log_prob=-0.5))
    tensors = whole.feed(Tokens(ids=(2,), log_probs=(-1.0,), cumulative_log_prob=-1.5, final=True))
    assert tensors is not None
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "output_ids": [[[1, 2]]],
        "sequence_length": [[2]],
        "output_log_probs": [[[-0.5, -1.0]]],
        "cum_log_probs": [[-1.5]],
        "num_input_tokens": [[3]],
        "num_output_tokens": [[2]],
    }
    declared = {spec.name: spec for spec in OUTPUTS}
    for name, tensor in tensors.items():
        assert tensor.ndim == 1 + len(declared[name].dims)
