"""Asking for cancellations and reporting counts."""

from __future__ import annotations

import threading

from engine_build.llama_cpp.runtime.scheduler import Counts
from engine_build.llama_cpp.runtime.watch import Watch

from .test_scheduler import Bench


def test_cancels_and_reports() -> None:
    bench = Bench()
    reported: list[Counts] = []
    idle_again = threading.Event()

    def report(counts: Counts) -> None:
        reported.append(counts)
        if len(reported) > 1 and not counts.active:
            idle_again.set()

    bench.scheduler.start()
    watch = Watch(bench.scheduler, report)
    gone = threading.Event()
    pause = threading.Event()
    bench.model.before_decode = lambda: bool(pause.wait(0.001)) and None  # or the output's end comes first
    generation, listener = bench.submit(1, new=100_000)
    watch.add(generation, gone.is_set)
    gone.set()
    assert listener.ended.wait(10)
    assert idle_again.wait(10)
    watch.close()
    bench.scheduler.close()
    assert Counts(waiting=0, active=0, scheduled=0, max=2) == reported[-1]


def test_a_failing_question_does_not_end_the_watch() -> None:
    bench = Bench()
    asked = threading.Semaphore(0)

    def fail() -> bool:
        asked.release()
        raise RuntimeError("Triton is busy")

    watch = Watch(bench.scheduler, lambda counts: None)
    watch.add(bench.submit(1)[0], fail)
    assert asked.acquire(timeout=10)
    assert asked.acquire(timeout=10)
    watch.close()
