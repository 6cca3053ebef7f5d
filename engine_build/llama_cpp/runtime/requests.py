"""From the tensors of the `tensorrt_llm` contract to a frozen GenerationRequest, with every check but the guide's.

Knows neither Triton nor llama.cpp: tensors come as a mapping of numpy arrays. `guided` reads the guide's text, and
`guides` compiles it. Nothing is ignored silently: a tensor that the CPU engine cannot honour is refused by name, unless
its value asks for nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from .errors import RequestError
from .guided import Guide
from .stop_words import Word, words_from_tensor
from .tensors import TensorReader, Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the served model can take: ids, tokens of prompt and output together, and task ids of LoRA adapters."""

    vocabulary_size: int
    context_length: int
    adapters: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a token is drawn from the logits. The defaults are upstream's: greedy, no penalties, seed 0."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0

    @property
    def is_greedy(self) -> bool:
        """As upstream: only a top_k above 1 or any top_p turns sampling on; temperature alone does not."""
        return self.temperature == 0 or self.top_k == 1 or (self.top_k == 0 and self.top_p is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One checked request. `max_new_tokens` is already cut to what the context leaves; `end_id` -1 means none.

    `adapter` is the task id of a LoRA adapter. `guide` follows this one request's output: the only part with a state.
    """

    prompt: tuple[int, ...]
    max_new_tokens: int
    end_id: int = -1
    stop_words: tuple[Word, ...] = ()
    bad_words: tuple[Word, ...] = ()
    min_tokens: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    streaming: bool = False
    exclude_input: bool = False
    log_probs: bool = False
    count_input: bool = False
    count_output: bool = False
    adapter: int | None = None
    guide: Guide | None = None


def is_stop_command(tensors: Tensors) -> bool:
    """True for a request that only ends another one (`stop`)."""
    return TensorReader(tensors).flag("stop")


def generation_request_from_tensors(tensors: Tensors, limits: Limits) -> GenerationRequest:
    """Check everything and build the request.

    Raises:
        RequestError: names the tensor, its value and what is allowed.
    """
    _refuse_what_cannot_be_honoured(tensors)
    _check_what_has_no_effect(tensors, limits)
    reader = TensorReader(tensors)
    prompt = _prompt(reader, limits)
    top_id = limits.vocabulary_size - 1
    return GenerationRequest(
        prompt=prompt,
        max_new_tokens=min(reader.integer("request_output_len", None, 1), limits.context_length - len(prompt)),
        end_id=reader.integer("end_id", -1, -1, top_id),
        stop_words=_words(tensors, "stop_words_list", limits),
        bad_words=_words(tensors, "bad_words_list", limits),
        min_tokens=reader.integer("min_tokens", 0, 0),
        sampling=_sampling(reader),
        streaming=reader.flag("streaming"),
        exclude_input=reader.flag("exclude_input_in_output"),
        log_probs=reader.flag("return_log_probs"),
        count_input=reader.flag("return_num_input_tokens"),
        count_output=reader.flag("return_num_output_tokens"),
        adapter=_adapter(reader, limits),
    )


def _prompt(reader: TensorReader, limits: Limits) -> tuple[int, ...]:
    ids = reader.tensor("input_ids").reshape(-1)
    length = reader.integer("input_lengths", None, 0)
    if length != ids.size:
        # Upstream's C++ backend would take the padding for prompt, its Python twin would cut it off.
        raise RequestError(f"input_lengths is {length}, but input_ids holds {ids.size} ids; they must agree")
    if not ids.size:
        raise RequestError("input_ids is empty; a prompt needs at least one id")
    longest = limits.context_length - 1
    if ids.size > longest:
        raise RequestError(f"Prompt length ({ids.size}) exceeds maximum input length ({longest})")
    outside = (ids < 0) | (ids >= limits.vocabulary_size)
    if outside.any():
        position = int(outside.argmax())
        raise RequestError(
            f"input_ids holds the id {ids[position]} at position {position}, outside [0, {limits.vocabulary_size - 1}]"
        )
    return tuple(ids.tolist())


def _words(tensors: Tensors, name: str, limits: Limits) -> tuple[Word, ...]:
    return words_from_tensor(name, tensors[name], limits.vocabulary_size) if name in tensors else ()


def _adapter(reader: TensorReader, limits: Limits) -> int | None:
    if not reader.has("lora_task_id"):
        return None
    adapter = reader.integer("lora_task_id", None, 0, 2**64 - 1)
    if adapter not in limits.adapters:
        known = ", ".join(map(str, sorted(limits.adapters)))
        raise RequestError(f"lora_task_id is {adapter}; this bundle has {known or 'no LoRA adapters'}")
    return adapter


def _sampling(reader: TensorReader) -> Sampling:
    top_p = reader.real("runtime_top_p", 0.0, 0, 1, above_minimum=True) if reader.has("runtime_top_p") else None
    return Sampling(
        temperature=reader.real("temperature", 1.0, 0),
        top_k=reader.integer("runtime_top_k", 0, 0),
        top_p=top_p,
        repetition_penalty=reader.real("repetition_penalty", 1.0, 0, above_minimum=True),
        presence_penalty=reader.real("presence_penalty", 0.0),
        frequency_penalty=reader.real("frequency_penalty", 0.0),
        seed=reader.integer("seed", 0, 0, 2**64 - 1),
    )


def _check_what_has_no_effect(tensors: Tensors, limits: Limits) -> None:
    """Tensors that mean nothing to a single beam without padding or top_p decay: only their ranges are checked."""
    reader = TensorReader(tensors)
    reader.integer("pad_id", 0, -1, limits.vocabulary_size - 1)
    reader.real("runtime_top_p_min", 0.0, 0, 1)
    reader.integer("runtime_top_p_reset_ids", 0, 0)
    reader.real("len_penalty", 0.0, 0)
    reader.flag("early_stopping")
    reader.real("beam_search_diversity_rate", 0.0, 0)


def _is_empty(tensor: NDArray[Any]) -> bool:
    return tensor.size == 0


def _is_false(tensor: NDArray[Any]) -> bool:
    return not tensor.any()


def _is_one(tensor: NDArray[Any]) -> bool:
    return bool((tensor == 1).all())


# name -> (the value asks for nothing, what the CPU engine cannot do)
_REFUSED: dict[str, tuple[Callable[[NDArray[Any]], bool], str]] = {
    "beam_width": (_is_one, "has no beam search: only 1 is possible"),
    "num_return_sequences": (_is_one, "returns one sequence: only 1 is possible"),
    "runtime_top_p_decay": (_is_one, "has no top_p decay: only 1 is possible"),
    "embedding_bias": (_is_empty, "takes no logit bias"),
    "draft_input_ids": (_is_empty, "has no speculative decoding"),
    "lora_weights": (_is_empty, "takes LoRA adapters from its bundle only, by lora_task_id"),
    "lora_config": (_is_empty, "takes LoRA adapters from its bundle only, by lora_task_id"),
    "return_context_logits": (_is_false, "returns no logits"),
    "return_generation_logits": (_is_false, "returns no logits"),
    "return_perf_metrics": (_is_false, "returns no performance figures"),
}

KNOWN_TENSORS = frozenset(_REFUSED) | {
    "input_ids",
    "input_lengths",
    "request_output_len",
    "end_id",
    "pad_id",
    "stop_words_list",
    "bad_words_list",
    "min_tokens",
    "temperature",
    "runtime_top_k",
    "runtime_top_p",
    "runtime_top_p_min",
    "runtime_top_p_reset_ids",
    "len_penalty",
    "early_stopping",
    "repetition_penalty",
    "beam_search_diversity_rate",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "guided_decoding_guide_type",
    "guided_decoding_guide",
    "lora_task_id",
    "return_log_probs",
    "return_num_input_tokens",
    "return_num_output_tokens",
    "exclude_input_in_output",
    "stop",
    "streaming",
}


def _refuse_what_cannot_be_honoured(tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        if name not in KNOWN_TENSORS:
            raise RequestError(f"{name} is not supported by the CPU engine; leave it out")
        asks_for_nothing, reason = _REFUSED.get(name, (None, ""))
        if asks_for_nothing is not None and not asks_for_nothing(tensor):
            raise RequestError(f"{name} cannot be honoured: the CPU engine {reason}; leave it out")
