"""The contract, held against upstream's declaration as it was read on 22 November 2026."""

from engine_build.contract import INPUTS, OUTPUTS

_UPSTREAM_SCALARS = {
    "TYPE_INT32": "input_lengths request_output_len num_return_sequences end_id pad_id beam_width runtime_top_k "
    "runtime_top_p_reset_ids min_tokens",
    "TYPE_FP32": "temperature runtime_top_p runtime_top_p_min runtime_top_p_decay len_penalty repetition_penalty "
    "beam_search_diversity_rate presence_penalty frequency_penalty",
    "TYPE_BOOL": "early_stopping return_log_probs return_context_logits return_generation_logits return_perf_metrics "
    "return_num_input_tokens return_num_output_tokens exclude_input_in_output stop streaming",
    "TYPE_UINT64": "seed lora_task_id",
}
_UPSTREAM_ARRAYS = {
    "input_ids": ("TYPE_INT32", (-1,)),
    "draft_input_ids": ("TYPE_INT32", (-1,)),
    "stop_words_list": ("TYPE_INT32", (2, -1)),
    "bad_words_list": ("TYPE_INT32", (2, -1)),
    "embedding_bias": ("TYPE_FP32", (-1,)),
    "lora_weights": ("TYPE_FP16", (-1, -1)),
    "lora_config": ("TYPE_INT32", (-1, 3)),
    "guided_decoding_guide_type": ("TYPE_STRING", (1,)),
    "guided_decoding_guide": ("TYPE_STRING", (1,)),
}


def test_scalars_are_upstreams() -> None:
    expected = {(name, kind) for kind, names in _UPSTREAM_SCALARS.items() for name in names.split()}
    assert {(spec.name, spec.data_type) for spec in INPUTS if spec.scalar} == expected
    assert all(spec.dims == (1,) for spec in INPUTS if spec.scalar)


def test_arrays_are_upstreams() -> None:
    arrays = {spec.name: (spec.data_type, spec.dims) for spec in INPUTS if not spec.scalar}
    assert arrays == _UPSTREAM_ARRAYS


def test_only_two_inputs_are_required() -> None:
    assert [spec.name for spec in INPUTS if not spec.optional] == ["input_lengths", "request_output_len"]


def test_outputs_are_upstreams() -> None:
    assert {spec.name: (spec.data_type, spec.dims) for spec in OUTPUTS} == {
        "output_ids": ("TYPE_INT32", (-1, -1)),
        "sequence_length": ("TYPE_INT32", (-1,)),
        "cum_log_probs": ("TYPE_FP32", (-1,)),
        "output_log_probs": ("TYPE_FP32", (-1, -1)),
        "context_logits": ("TYPE_FP32", (-1, -1)),
        "generation_logits": ("TYPE_FP32", (-1, -1, -1)),
        "batch_index": ("TYPE_INT32", (1,)),
        "sequence_index": ("TYPE_INT32", (1,)),
        "num_input_tokens": ("TYPE_INT32", (1,)),
        "num_output_tokens": ("TYPE_INT32", (1,)),
    }


def test_names_are_unique() -> None:
    assert len({spec.name for spec in INPUTS}) == len(INPUTS)
