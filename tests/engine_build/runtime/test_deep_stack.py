"""A function in a thread with a large stack."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from engine_build.llama_cpp.runtime.deep_stack import STACK_BYTES, on_deep_stack


def test_gives_the_result_and_leaves_other_threads_alone() -> None:
    usual = threading.stack_size()
    name = on_deep_stack(lambda: threading.current_thread().name)
    assert name == "deep stack"
    assert threading.stack_size() == usual != STACK_BYTES


def test_raises_what_the_function_raises() -> None:
    def fail() -> None:
        raise ZeroDivisionError("here")

    with pytest.raises(ZeroDivisionError, match="here"):
        on_deep_stack(fail)


def test_an_error_holds_nothing_once_it_was_dealt_with() -> None:
    """What callers hold includes Triton's sender, and with it the request's shared memory."""

    class Held:
        pass

    def fail() -> None:
        raise ZeroDivisionError("here")

    def call(held: Held) -> None:
        with pytest.raises(ZeroDivisionError):
            on_deep_stack(fail)

    gc.collect()
    gc.disable()
    try:
        held = Held()
        reference = weakref.ref(held)
        call(held)
        del held
        assert reference() is None
    finally:
        gc.enable()
