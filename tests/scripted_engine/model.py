"""The scripted engine as Triton's Python backend loads it, from one folder with the CPU engine's files.

Requests are read, checked and answered by the CPU engine's own code; only the ids come from the script. Sampling
tensors but `seed`, bad words and min_tokens have no effect here.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from itertools import islice

import triton_python_backend_utils as pb_utils

from .errors import RequestError
from .generation import Event, Failed, Tokens
from .inbox import check_requested_outputs, input_tensors, stop_target
from .metrics import RequestMetrics
from .outbox import Outlet, send_empty, send_error
from .requests import GenerationRequest, Limits, generation_request_from_tensors, is_stop_command
from .scheduler import Counts
from .script import Script, endless_ids, greedy_ids, script_from_parameters
from .stop_words import StopWords

_LOOK_SECONDS = 0.02


class TritonPythonModel:
    """Triton's entry points. One thread for each request."""

    def initialize(self, args: dict[str, str]) -> None:
        self._script = script_from_parameters(json.loads(args["model_config"])["parameters"])
        self._limits = Limits(vocabulary_size=self._script.vocabulary_size, context_length=self._script.context_length)
        self._metrics = RequestMetrics(args["model_name"], args["model_version"])
        self._changed = threading.Condition()
        self._live: dict[threading.Event, str] = {}
        self._metrics.set(Counts(waiting=0, active=0, scheduled=0, max=0))

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._take(request, sender)
            except RequestError as error:
                send_error(sender, str(error), pb_utils.TritonError.INVALID_ARG)

    def finalize(self) -> None:
        with self._changed:
            for stop in self._live:
                stop.set()
            self._changed.wait_for(lambda: not self._live, timeout=5)

    def _take(self, request: pb_utils.InferenceRequest, sender: pb_utils.InferenceResponseSender) -> None:
        tensors = input_tensors(request)
        if is_stop_command(tensors):
            self._stop(stop_target(request))
            send_empty(sender)
            return
        check_requested_outputs(request)
        checked = generation_request_from_tensors(tensors, self._limits)
        stop = threading.Event()
        self._count(stop, request.request_id())
        arguments = (Outlet(sender, checked), checked, stop)
        threading.Thread(target=self._answer, args=arguments, daemon=True).start()

    def _stop(self, request_id: str) -> None:
        with self._changed:
            for stop, live_id in self._live.items():
                if live_id == request_id:
                    stop.set()

    def _answer(self, outlet: Outlet, request: GenerationRequest, stop: threading.Event) -> None:
        looked = time.monotonic()
        for event in events(self._script, request):
            if time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                if outlet.is_cancelled():
                    stop.set()
            stop.wait(self._script.delay_microseconds / 1e6)
            if stop.is_set():
                event = Tokens(final=True)
            outlet.send(event)
            if outlet.ended:
                break
        self._count(stop, None)

    def _count(self, stop: threading.Event, request_id: str | None) -> None:
        """Enter a request among the live ones, or (None) take it out."""
        with self._changed:
            if request_id is None:
                del self._live[stop]
            else:
                self._live[stop] = request_id
            active = len(self._live)
            self._metrics.set(Counts(waiting=0, active=active, scheduled=active, max=active))
            self._changed.notify_all()


def events(script: Script, request: GenerationRequest) -> Iterator[Event]:
    """Everything that is answered to a request, in the CPU engine's own terms."""
    stop_words = StopWords(request.stop_words)
    sequence = list(request.prompt)
    ids = greedy_ids(request.prompt) if script.greedy else endless_ids(request.prompt, request.sampling.seed)
    budget = None if script.endless else request.max_new_tokens
    ends = [end for end in (script.fail_after, script.end_after, budget) if end is not None and end >= 0]
    length = min(ends) if ends else None
    chunk: list[int] = []
    for token in islice(ids, length):
        sequence.append(token)
        chunk.append(token)
        stopped = stop_words.end(sequence)
        final = stopped or len(sequence) - len(request.prompt) == (budget if length == budget else None)
        if final or len(chunk) == script.tokens_per_response:
            yield Tokens(ids=tuple(chunk), log_probs=(0.0,) * len(chunk), final=final)
            chunk = []
        if final:
            return
    if length == script.fail_after:
        if chunk:
            yield Tokens(ids=tuple(chunk), log_probs=(0.0,) * len(chunk))
        yield Failed(message=f"the script fails after {length} ids")
    else:
        yield Tokens(ids=tuple(chunk), log_probs=(0.0,) * len(chunk), final=True)
