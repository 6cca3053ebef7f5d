"""Guided requests while their guides are compiled, which takes up to some seconds: in a few threads of their own.

Knows how a request goes on and how it ends as callables only: no Triton, no scheduler, no grammars.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from .errors import RequestError
from .generation import EventHandler, Failed, Generation, Tokens
from .requests import GenerationRequest

_logger = logging.getLogger(__name__)
_CANCELLED = Tokens(final=True)
_CLOSING = Failed(message="the engine is shutting down", unavailable=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class UncompiledRequest:
    """One request. `compile` raises RequestError; then, or when it is cancelled, it ends with one event to `end`.

    Otherwise `submit` takes it over, with its end.
    """

    request_id: str
    compile: Callable[[], GenerationRequest]
    submit: Callable[[GenerationRequest], Generation]
    is_cancelled: Callable[[], bool]
    end: EventHandler


@dataclass(slots=True, eq=False)
class _Job:
    request: UncompiledRequest
    future: Future[None] | None = None
    cancelled: bool = False

    def take_back(self) -> bool:
        """Whether no thread has begun with it; none will then."""
        return self.future is not None and self.future.cancel()

    def has_gone(self) -> bool:
        return self.cancelled or self.request.is_cancelled()


class Compiling:
    """The requests, in order of arrival. Every one ends here or is submitted, never both."""

    def __init__(self, cancel: Callable[[Generation], None], *, threads: int, most_waiting: int) -> None:
        """`cancel` is for requests that were stopped while they were being submitted."""
        self._cancel = cancel
        self._most_waiting = most_waiting
        self._most = threads + most_waiting
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="guides")
        self._lock = threading.Lock()
        self._jobs: list[_Job] = []
        self._closing = False

    def add(self, request: UncompiledRequest) -> None:
        """Returns at once. Where too many wait, or after `close`, the request fails as unavailable."""
        with self._lock:
            refusal = self._refusal()
            if refusal is None:
                job = _Job(request)
                self._jobs.append(job)
                job.future = self._threads.submit(self._run, job)
        if refusal is not None:
            request.end(refusal)

    def stop(self, request_id: str) -> None:
        """Cancel the requests that carry this id; none is not an error."""
        with self._lock:
            stopped = [job for job in self._jobs if job.request.request_id == request_id]
            for job in stopped:
                job.cancelled = True
        self._end_waiting(stopped, _CANCELLED)

    def close(self) -> None:
        """Fail all that wait as unavailable; returns when the compiles that run already have ended."""
        with self._lock:
            self._closing = True
            jobs = list(self._jobs)
        self._end_waiting(jobs, _CLOSING)
        self._threads.shutdown()

    def _refusal(self) -> Failed | None:
        if self._closing:
            return _CLOSING
        if len(self._jobs) < self._most:
            return None
        return Failed(message=f"the maximum queue size of {self._most_waiting} guides is reached", unavailable=True)

    def _end_waiting(self, jobs: list[_Job], event: Failed | Tokens) -> None:
        for job in jobs:
            if job.take_back() and self._forget(job):
                job.request.end(event)

    def _run(self, job: _Job) -> None:
        event = self._submitted(job)
        self._forget(job)
        if event is not None:
            job.request.end(event)

    def _submitted(self, job: _Job) -> Failed | Tokens | None:
        """None where it went on, otherwise how it ends."""
        try:
            if job.has_gone():
                return _CANCELLED
            if self._closing:
                return _CLOSING
            request = job.request.compile()
            if job.has_gone():
                return _CANCELLED
            self._submit(job, request)
        except RequestError as error:
            return Failed(message=str(error), invalid=True)
        except Exception as error:
            _logger.exception("cannot take a guided request")
            return Failed(message=f"cannot take the request: {error!r}")
        return None

    def _submit(self, job: _Job, request: GenerationRequest) -> None:
        """Who stops the request finds it among the jobs or where it is submitted, in between in both."""
        generation = job.request.submit(request)
        self._forget(job)
        if job.cancelled:
            self._cancel(generation)

    def _forget(self, job: _Job) -> bool:
        """Whether it was known until now."""
        with self._lock:
            known = job in self._jobs
            if known:
                self._jobs.remove(job)
        return known
