"""From the engine's events to the output tensors of the `tensorrt_llm` contract. Knows numpy, not Triton."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .generation import Tokens
from .requests import GenerationRequest

OutputTensors = dict[str, NDArray[Any]]


class Reply:
    """The responses of one request: each event's new ids when streaming, otherwise all of them at the end."""

    def __init__(self, request: GenerationRequest) -> None:
        self._request = request
        self._ids: list[int] = []
        self._log_probs: list[float] = []
        if not (request.streaming or request.exclude_input):
            self._ids.extend(request.prompt)

    def feed(self, event: Tokens) -> OutputTensors | None:
        """The tensors to send now, or None while they are being collected."""
        self._ids.extend(event.ids)
        self._log_probs.extend(event.log_probs)
        if not (self._request.streaming or event.final):
            return None
        tensors = self._tensors(event.cumulative_log_prob)
        self._ids.clear()
        self._log_probs.clear()
        return tensors

    def _tensors(self, cumulative_log_prob: float) -> OutputTensors:
        count = len(self._ids)
        tensors: OutputTensors = {
            "output_ids": np.array(self._ids, np.int32).reshape(1, 1, count),
            "sequence_length": np.array([[count]], np.int32),
        }
        if self._request.log_probs:
            tensors["output_log_probs"] = np.array(self._log_probs, np.float32).reshape(1, 1, len(self._log_probs))
            tensors["cum_log_probs"] = np.array([[cumulative_log_prob]], np.float32)
        if self._request.count_input:
            tensors["num_input_tokens"] = np.array([[len(self._request.prompt)]], np.int32)
        if self._request.count_output:
            # As upstream: the ids of this response, with the prompt where the response repeats it.
            tensors["num_output_tokens"] = np.array([[count]], np.int32)
        return tensors
