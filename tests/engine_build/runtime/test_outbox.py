"""What is sent to Triton, and that it is never asked about a request that it has let go of."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from engine_build.llama_cpp.runtime.generation import Failed, Tokens
from engine_build.llama_cpp.runtime.requests import GenerationRequest

FINAL = 1
MODULE = "engine_build.llama_cpp.runtime.outbox"
REQUEST = GenerationRequest(prompt=(1, 2), max_new_tokens=5, streaming=True)
PATIENCE_SECONDS = 20


class Sender:
    """Triton's sender: records, and can be made to take its time over `is_cancelled`."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, int]] = []
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def is_cancelled(self) -> bool:
        self.asked.set()
        assert self.may_answer.wait(PATIENCE_SECONDS)
        assert not any(flags & FINAL for _, flags in self.sent), "asked about a request that Triton has let go of"
        return True

    def send(self, response: Any, flags: int = 0) -> None:
        self.sent.append((response, flags))


@pytest.fixture
def outlet_class(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The class, imported beside a stand-in for the module that exists inside Triton only."""
    backend = ModuleType("triton_python_backend_utils")
    backend.__dict__.update(
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=FINAL,
        InferenceResponse=lambda **fields: SimpleNamespace(**fields),
        Tensor=lambda name, value: (name, value),
        TritonError=type("TritonError", (SimpleNamespace,), {"INTERNAL": 1, "UNAVAILABLE": 2, "INVALID_ARG": 3}),
    )
    backend.__dict__["TritonError"].__init__ = lambda self, message, code: self.__dict__.update(text=message, code=code)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    yield importlib.import_module(MODULE).Outlet
    sys.modules.pop(MODULE, None)


def test_the_last_response_is_final_and_nothing_follows(outlet_class: Any) -> None:
    sender = Sender()
    outlet = outlet_class(sender, REQUEST)
    outlet.send(Tokens(ids=(7,)))
    outlet.send(Tokens(ids=(8,), final=True))
    outlet.send(Failed(message="too late"))
    assert [flags for _, flags in sender.sent] == [0, FINAL]


def test_nobody_asks_after_the_last_response(outlet_class: Any) -> None:
    sender = Sender()
    outlet = outlet_class(sender, REQUEST)
    assert outlet.is_cancelled() is True
    outlet.send(Tokens(final=True))
    assert outlet.is_cancelled() is False


@pytest.mark.parametrize(
    ("failed", "code"),
    [
        (Failed(message="broken"), 1),
        (Failed(message="broken", unavailable=True), 2),
        (Failed(message="broken", invalid=True), 3),
    ],
)
def test_failures_have_their_codes(outlet_class: Any, failed: Failed, code: int) -> None:
    sender = Sender()
    outlet_class(sender, REQUEST).send(failed)
    ((response, flags),) = sender.sent
    assert (response.error.text, response.error.code, flags) == ("broken", code, FINAL)


@pytest.mark.parametrize("last", [Tokens(final=True), Failed(message="broken")], ids=["tokens", "failed"])
def test_the_last_response_waits_for_an_answer_that_is_on_its_way(outlet_class: Any, last: Any) -> None:
    """Without the wait Triton crashes: it looks up a request that it has just deleted."""
    sender = Sender()
    outlet = outlet_class(sender, REQUEST)
    sender.may_answer.clear()
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(outlet.is_cancelled()))
    sending = threading.Thread(target=outlet.send, args=(last,))
    asking.start()
    assert sender.asked.wait(PATIENCE_SECONDS)
    sending.start()
    sending.join(0.1)
    assert sender.sent == []
    sender.may_answer.set()
    asking.join(PATIENCE_SECONDS)
    sending.join(PATIENCE_SECONDS)
    assert answers == [True]
    assert [flags for _, flags in sender.sent] == [FINAL]
