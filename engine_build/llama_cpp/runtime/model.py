"""The `tensorrt_llm` model as Triton's Python backend loads it: Triton on one side, the engine on the other.

Requests go to the scheduler, its events come back through the outbox; `execute` returns at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import triton_python_backend_utils as pb_utils

from .compiling import Compiling, UncompiledRequest
from .errors import RequestError
from .generation import Generation
from .guided import GuideText, guide_text_from_tensors
from .guides import Guides
from .inbox import check_requested_outputs, input_tensors, stop_target
from .language_model import LanguageModel
from .library import open_library
from .metrics import RequestMetrics
from .outbox import Outbox, Outlet, send_empty, send_error
from .requests import GenerationRequest, Limits, generation_request_from_tensors, is_stop_command
from .scheduler import Scheduler
from .settings import settings_from_parameters
from .watch import Watch

# The outbox shares the interpreter with the engine's thread: it must not hold it for Python's usual 5 ms.
_SWITCH_INTERVAL_SECONDS = 0.0005
# Large grammars take a second or more to compile: neither the engine's thread nor Triton's may wait for one.
_COMPILING_THREADS = 2
_MOST_WAITING_GUIDES = 64


class TritonPythonModel:
    """Triton's entry points."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model; an exception here makes Triton report the model as unavailable, with the text."""
        sys.setswitchinterval(_SWITCH_INTERVAL_SECONDS)
        settings = settings_from_parameters(json.loads(args["model_config"])["parameters"])
        folder = Path(args["model_repository"]) / args["model_version"]
        self._language_model = LanguageModel(
            open_library(),
            folder / settings.gguf,
            slots=settings.parallel_requests,
            context_length=settings.context_length,
            threads=settings.threads,
            rows_per_step=settings.parallel_requests + settings.prefill_chunk,
            adapters={task_id: folder / name for task_id, name in settings.adapters.items()},
        )
        self._limits = Limits(
            vocabulary_size=self._language_model.vocabulary_size,
            context_length=settings.context_length,
            adapters=frozenset(settings.adapters),
        )
        self._guides = Guides(self._language_model.token_bytes())
        self._scheduler = Scheduler(self._language_model, prefill_chunk=settings.prefill_chunk)
        self._compiling = Compiling(
            self._scheduler.cancel, threads=_COMPILING_THREADS, most_waiting=_MOST_WAITING_GUIDES
        )
        self._outbox = Outbox()
        self._watch = Watch(self._scheduler, RequestMetrics(args["model_name"], args["model_version"]).set)
        self._scheduler.start()

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        """Hand every request on. A decoupled model answers through the requests' senders, whenever it likes."""
        for request in requests:
            sender = request.get_response_sender()
            _or_send_error(sender, partial(self._take, request, sender))

    def finalize(self) -> None:
        """End all requests, then give the memory back."""
        self._scheduler.close()
        self._compiling.close()  # what it still submits, the scheduler refuses
        self._watch.close()
        self._outbox.close()
        self._language_model.close()

    def _take(self, request: pb_utils.InferenceRequest, sender: pb_utils.InferenceResponseSender) -> None:
        tensors = input_tensors(request)
        if is_stop_command(tensors):
            self._stop(stop_target(request))
            send_empty(sender)
            return
        check_requested_outputs(request)
        generation_request = generation_request_from_tensors(tensors, self._limits)
        guide = guide_text_from_tensors(tensors)
        outlet, request_id = Outlet(sender, generation_request), request.request_id()
        if guide is None:
            self._submit(generation_request, outlet=outlet, request_id=request_id)
            return
        uncompiled = UncompiledRequest(
            request_id=request_id,
            compile=partial(self._with_guide, generation_request, guide),
            submit=partial(self._submit, outlet=outlet, request_id=request_id),
            is_cancelled=outlet.is_cancelled,
            end=partial(self._outbox.put, outlet),
        )
        self._compiling.add(uncompiled)

    def _stop(self, request_id: str) -> None:
        # In this order: a request goes from the one to the other.
        self._compiling.stop(request_id)
        self._scheduler.stop(request_id)

    def _with_guide(self, request: GenerationRequest, text: GuideText) -> GenerationRequest:
        guide = self._guides.start(text, end_id=request.end_id, stop_words=request.stop_words)
        return replace(request, guide=guide)

    def _submit(self, request: GenerationRequest, *, outlet: Outlet, request_id: str) -> Generation:
        generation = self._scheduler.submit(request, partial(self._outbox.put, outlet), request_id)
        self._watch.add(generation, outlet.is_cancelled)
        return generation


def _or_send_error(sender: pb_utils.InferenceResponseSender, action: Callable[[], None]) -> None:
    """Do what there is to do for a request; if that fails, its caller is told."""
    try:
        action()
    except RequestError as error:
        send_error(sender, str(error), pb_utils.TritonError.INVALID_ARG)
    except Exception as error:
        send_error(sender, f"cannot take the request: {error!r}", pb_utils.TritonError.INTERNAL)
