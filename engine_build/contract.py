"""The engine contract: the tensors of the Triton model `tensorrt_llm`, as TensorRT-LLM declares them for text models.

THE one declaration. The CPU engine's and the TensorRT-LLM engine's config.pbtxt are both written from it, and a test
holds the server's own list against it. Dims exclude the batch dimension, which every tensor has. Left out of
upstream's list are the encoder-decoder, vision and prompt-table inputs, KV retention, lookahead, draft logits,
disaggregated serving and the performance outputs: a text service sends and reads none of them.

Source: triton_backend/all_models/inflight_batcher_llm/tensorrt_llm/config.pbtxt in github.com/NVIDIA/TensorRT-LLM.
"""

from __future__ import annotations

from dataclasses import dataclass

MODEL_NAME = "tensorrt_llm"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor. `data_type` is the name of a Triton DataType, such as TYPE_INT32.

    `scalar`: the caller sends [batch, 1] and the model sees [batch] (an empty reshape). `ragged`: requests of different
    lengths may share a batch.
    """

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False
    scalar: bool = False
    ragged: bool = False


def _scalar(name: str, data_type: str, *, optional: bool = True) -> TensorSpec:
    return TensorSpec(name=name, data_type=data_type, dims=(1,), optional=optional, scalar=True)


def _array(name: str, data_type: str, *dims: int) -> TensorSpec:
    return TensorSpec(name=name, data_type=data_type, dims=dims, optional=True, ragged=True)


def _output(name: str, data_type: str, *dims: int) -> TensorSpec:
    return TensorSpec(name=name, data_type=data_type, dims=dims)


INPUTS: tuple[TensorSpec, ...] = (
    # The prompt and how much to generate. input_ids is optional upstream, yet a request without it is refused.
    _array("input_ids", "TYPE_INT32", -1),
    _scalar("input_lengths", "TYPE_INT32", optional=False),
    _scalar("request_output_len", "TYPE_INT32", optional=False),
    _scalar("num_return_sequences", "TYPE_INT32"),
    _array("draft_input_ids", "TYPE_INT32", -1),
    # Where to end. Words: row 0 = ids of all words, row 1 = end offset of each, padded with -1.
    _scalar("end_id", "TYPE_INT32"),
    _scalar("pad_id", "TYPE_INT32"),
    _array("stop_words_list", "TYPE_INT32", 2, -1),
    _array("bad_words_list", "TYPE_INT32", 2, -1),
    _scalar("min_tokens", "TYPE_INT32"),
    # Sampling and search.
    _array("embedding_bias", "TYPE_FP32", -1),
    _scalar("beam_width", "TYPE_INT32"),
    _scalar("temperature", "TYPE_FP32"),
    _scalar("runtime_top_k", "TYPE_INT32"),
    _scalar("runtime_top_p", "TYPE_FP32"),
    _scalar("runtime_top_p_min", "TYPE_FP32"),
    _scalar("runtime_top_p_decay", "TYPE_FP32"),
    _scalar("runtime_top_p_reset_ids", "TYPE_INT32"),
    _scalar("len_penalty", "TYPE_FP32"),
    _scalar("early_stopping", "TYPE_BOOL"),
    _scalar("repetition_penalty", "TYPE_FP32"),
    _scalar("beam_search_diversity_rate", "TYPE_FP32"),
    _scalar("presence_penalty", "TYPE_FP32"),
    _scalar("frequency_penalty", "TYPE_FP32"),
    _scalar("seed", "TYPE_UINT64"),
    # What to return.
    _scalar("return_log_probs", "TYPE_BOOL"),
    _scalar("return_context_logits", "TYPE_BOOL"),
    _scalar("return_generation_logits", "TYPE_BOOL"),
    _scalar("return_perf_metrics", "TYPE_BOOL"),
    _scalar("return_num_input_tokens", "TYPE_BOOL"),
    _scalar("return_num_output_tokens", "TYPE_BOOL"),
    _scalar("exclude_input_in_output", "TYPE_BOOL"),
    _scalar("stop", "TYPE_BOOL"),
    _scalar("streaming", "TYPE_BOOL"),
    # Adapters and guided decoding.
    _scalar("lora_task_id", "TYPE_UINT64"),
    _array("lora_weights", "TYPE_FP16", -1, -1),
    _array("lora_config", "TYPE_INT32", -1, 3),
    _array("guided_decoding_guide_type", "TYPE_STRING", 1),
    _array("guided_decoding_guide", "TYPE_STRING", 1),
)

OUTPUTS: tuple[TensorSpec, ...] = (
    _output("output_ids", "TYPE_INT32", -1, -1),
    _output("sequence_length", "TYPE_INT32", -1),
    _output("cum_log_probs", "TYPE_FP32", -1),
    _output("output_log_probs", "TYPE_FP32", -1, -1),
    _output("context_logits", "TYPE_FP32", -1, -1),
    _output("generation_logits", "TYPE_FP32", -1, -1, -1),
    _output("batch_index", "TYPE_INT32", 1),
    _output("sequence_index", "TYPE_INT32", 1),
    _output("num_input_tokens", "TYPE_INT32", 1),
    _output("num_output_tokens", "TYPE_INT32", 1),
)
