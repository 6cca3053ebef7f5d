"""Runs a function where recursion in C or Rust may go deep. Knows nothing of what it runs.

A stack that overflows there ends the process, and with it every request.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

# Address space: memory only as far as it is used, and only while the function runs.
STACK_BYTES = 512 * 1024 * 1024

_Result = TypeVar("_Result")
_size_lock = threading.Lock()


def on_deep_stack(function: Callable[[], _Result]) -> _Result:
    """Call `function` in a thread of its own with a stack of `STACK_BYTES`; returns or raises what it does."""
    result: Future[_Result] = Future()
    with _size_lock:
        usual = threading.stack_size(STACK_BYTES)
        try:
            thread = threading.Thread(target=_run, args=(function, result), name="deep stack", daemon=True)
            thread.start()
        finally:
            threading.stack_size(usual)
    thread.join()
    try:
        return result.result()
    finally:
        # An error's traceback leads to this frame, and to the one below. If they held the error in turn, it would live
        # on until the garbage collector comes by, with all that its callers hold.
        del result


def _run(function: Callable[[], _Result], result: Future[_Result]) -> None:
    try:
        result.set_result(function())
    except BaseException as error:
        result.set_exception(error)
    finally:
        del result
