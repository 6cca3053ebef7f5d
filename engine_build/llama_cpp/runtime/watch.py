"""Every few milliseconds: ask Triton which requests were cancelled, and tell it how many requests there are.

Both are calls into Triton's process, so they have a thread of their own beside the engine's.
Knows callables only, neither Triton nor llama.cpp.
"""

import logging
import threading
from collections.abc import Callable

from .generation import Generation
from .scheduler import Counts, Scheduler

PERIOD_SECONDS = 0.02

_logger = logging.getLogger(__name__)


class Watch:
    """Cancels requests whose caller has gone, and reports changed counts."""

    def __init__(self, scheduler: Scheduler, report: Callable[[Counts], None]) -> None:
        self._scheduler = scheduler
        self._report = report
        self._reported: Counts | None = None
        self._lock = threading.Lock()
        self._watched: list[tuple[Generation, Callable[[], bool]]] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def add(self, generation: Generation, is_cancelled: Callable[[], bool]) -> None:
        """Ask `is_cancelled` until the request has ended."""
        with self._lock:
            self._watched.append((generation, is_cancelled))

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(PERIOD_SECONDS):
            try:
                self._look()
            except Exception:
                _logger.exception("cannot look after the requests")

    def _look(self) -> None:
        with self._lock:
            self._watched = [entry for entry in self._watched if not (entry[0].ended or entry[0].cancelled)]
            watched = list(self._watched)
        for generation, is_cancelled in watched:
            if not generation.ended and is_cancelled():
                self._scheduler.cancel(generation)
        counts = self._scheduler.counts()
        if counts != self._reported:
            self._report(counts)
            self._reported = counts
