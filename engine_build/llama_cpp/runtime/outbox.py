"""The only place that sends to Triton: one thread, in order, so that sending never holds up computing.

Knows Triton's Python backend, replies and events; knows no llama.cpp and no scheduling.
"""

from __future__ import annotations

import logging
import queue
import threading

import triton_python_backend_utils as pb_utils

from .generation import Event, Failed
from .replies import OutputTensors, Reply
from .requests import GenerationRequest

_logger = logging.getLogger(__name__)
_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class Outlet:
    """Where the responses of one request go, and where to ask whether its caller is still there.

    The two come from different threads and exclude each other: Triton 2.51 lets go of a request with its last response,
    and crashes when it is asked about it in that moment or later.
    """

    def __init__(self, sender: pb_utils.InferenceResponseSender, request: GenerationRequest) -> None:
        self._sender = sender
        self._reply = Reply(request)
        self._lock = threading.Lock()
        self.ended = False

    def is_cancelled(self) -> bool:
        """Whether the caller has gone; False once the last response has been sent."""
        with self._lock:
            return not self.ended and bool(self._sender.is_cancelled())

    def send(self, event: Event) -> None:
        """Send what the event calls for; the last response carries Triton's FINAL flag."""
        with self._lock:
            if self.ended:
                return
            try:
                self._send(event)
            except Exception as error:
                _logger.exception("cannot send a response")
                self.ended = True
                send_error(self._sender, f"cannot send the response: {error}", pb_utils.TritonError.INTERNAL)

    def _send(self, event: Event) -> None:
        if isinstance(event, Failed):
            self.ended = True
            send_error(self._sender, event.message, _code(event))
            return
        tensors = self._reply.feed(event)
        if tensors is not None:
            self._sender.send(_response(tensors), flags=_FINAL if event.final else 0)
        self.ended = event.final


class Outbox:
    """A queue and the thread that empties it."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Outlet, Event] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, outlet: Outlet, event: Event) -> None:
        """Queue an event; returns at once."""
        self._queue.put((outlet, event))

    def close(self) -> None:
        """Send all that is queued, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            outlet, event = item
            outlet.send(event)
            del item, outlet, event  # or the last request's sender lives on, and with it its shared memory


def send_error(sender: pb_utils.InferenceResponseSender, message: str, code: int) -> None:
    """End a request with an error."""
    error = pb_utils.TritonError(message, code)
    sender.send(pb_utils.InferenceResponse(output_tensors=[], error=error), flags=_FINAL)


def send_empty(sender: pb_utils.InferenceResponseSender) -> None:
    """End a request with success and no tensors."""
    sender.send(pb_utils.InferenceResponse(output_tensors=[]), flags=_FINAL)


def _code(failed: Failed) -> int:
    codes = pb_utils.TritonError
    code: int = codes.UNAVAILABLE if failed.unavailable else codes.INVALID_ARG if failed.invalid else codes.INTERNAL
    return code


def _response(tensors: OutputTensors) -> pb_utils.InferenceResponse:
    return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(name, value) for name, value in tensors.items()])
