"""A function in a thread with a large stack."""

from __future__ import annotations

import threading

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
