"""Client against real gRPC servers: requests, events, errors, retries, cancelling."""

from __future__ import annotations

import threading
from datetime import timedelta

import grpc
import llamarpc
import pytest
from google.protobuf.duration_pb2 import Duration
from llamarpc import CallError, Client, FinishReason, FunctionCode, Message, ResponseFormat, Role, Tool, ToolChoice
from llamarpc.client import GenerateOptions
from llamarpc.v1 import model_pb2
from llamarpc.v1 import text_generation_pb2 as pb
from llamarpc.v1.model_pb2_grpc import ModelServiceServicer
from llamarpc.v1.text_generation_pb2_grpc import TextGenerationServiceServicer

from .conftest import Serve

ANSWER_SECONDS = 20
"""Longest wait for something that happens on another thread."""


class Recorder(TextGenerationServiceServicer):
    """Answers anything and keeps the requests."""

    def __init__(self) -> None:
        self.requests = []
        self.metadata = []

    def Generate(self, request, context):
        self._keep(request, context)
        return pb.GenerateResponse(response="Blue.", finish_reason=pb.FINISH_REASON_STOP)

    def StreamGenerate(self, request, context):
        self._keep(request, context)
        yield pb.StreamGenerateResponse(sequence=0, started=pb.Started(seed=7))
        yield pb.StreamGenerateResponse(sequence=1, response="Bl")
        yield pb.StreamGenerateResponse(sequence=2, response="ue.")
        yield pb.StreamGenerateResponse(sequence=3, finished=pb.Finished(finish_reason=pb.FINISH_REASON_STOP))

    def CountTokens(self, request, context):
        self._keep(request, context)
        return pb.CountTokensResponse(prompt_tokens=3)

    def _keep(self, request, context):
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))


def test_printing_response_of_every_event_prints_the_answer(serve: Serve) -> None:
    with Client(serve(Recorder())) as client:
        events = list(client.stream("Why is the sky blue?"))
    assert "".join(event.response for event in events) == "Blue."
    assert events[-1].finished.finish_reason == FinishReason.FINISH_REASON_STOP


CONVERSATION = [Message(role=Role.ROLE_SYSTEM, content="Be brief."), Message(role=Role.ROLE_USER, content="Why?")]
PROMPT_OPTIONS = {
    "model": "m",
    "tools": [Tool(function={"name": "f"})],
    "functions": [FunctionCode(name="g", code="def g(): ...")],
    "raw": True,
    "tool_choice": ToolChoice(function_name="f"),
    "response_format": ResponseFormat(regex="a+"),
}
SAMPLING_OPTIONS = {
    "lora": "l",
    "max_tokens": 5,
    "temperature": 0.0,
    "top_p": 0.5,
    "top_k": 4,
    "seed": 9_999_999_999,
    "repetition_penalty": 1.5,
    "frequency_penalty": -2.0,
    "presence_penalty": 2.0,
    "stop": ["\n", "END"],
    "request_id": "mine",
}


@pytest.mark.parametrize("method", ["generate", "stream"])
def test_every_option_is_the_field_of_its_name(serve: Serve, method: str) -> None:
    recorder = Recorder()
    with Client(serve(recorder)) as client:
        answer = getattr(client, method)(
            CONVERSATION, **PROMPT_OPTIONS, **SAMPLING_OPTIONS, time_limit=timedelta(seconds=1.5)
        )
        if method == "stream":
            list(answer)
    time_limit = Duration(seconds=1, nanos=500_000_000)
    wanted = pb.GenerateRequest(messages=CONVERSATION, **PROMPT_OPTIONS, **SAMPLING_OPTIONS, time_limit=time_limit)
    assert recorder.requests == [wanted]


def test_no_field_of_the_request_is_left_out() -> None:
    fields = {field.name for field in pb.GenerateRequest.DESCRIPTOR.fields}
    assert set(GenerateOptions.__annotations__) == fields - {"prompt", "messages"}


def test_an_unknown_option_is_named() -> None:
    with Client() as client, pytest.raises(TypeError, match="no such option: max_token"):
        client.generate("Why?", max_token=3)  # type: ignore[call-arg]


def test_what_is_not_given_is_not_set(serve: Serve) -> None:
    recorder = Recorder()
    with Client(serve(recorder)) as client:
        assert client.generate("Why?").response == "Blue."
    assert recorder.requests == [pb.GenerateRequest(prompt="Why?")]


def test_one_stop_string_is_not_taken_for_many(serve: Serve) -> None:
    recorder = Recorder()
    with Client(serve(recorder)) as client:
        client.generate("Why?", stop="END")
    assert list(recorder.requests[0].stop) == ["END"]


def test_counts_tokens(serve: Serve) -> None:
    recorder = Recorder()
    with Client(serve(recorder)) as client:
        assert client.count_tokens(CONVERSATION, **PROMPT_OPTIONS, include_prompt=True).prompt_tokens == 3
    wanted = pb.GenerateRequest(messages=CONVERSATION, **PROMPT_OPTIONS)
    assert recorder.requests == [pb.CountTokensRequest(generate_request=wanted, include_prompt=True)]


def test_lists_models(serve: Serve) -> None:
    class OneModel(ModelServiceServicer):
        def ListModels(self, request, context):
            return model_pb2.ListModelsResponse(models=[model_pb2.Model(id="m", context_length=8192)])

    with Client(serve(OneModel())) as client:
        assert [(model.id, model.context_length) for model in client.models()] == [("m", 8192)]


@pytest.mark.parametrize(("wrong", "kind"), [({"max_tokens": 2**40}, ValueError), ({"top_k": "x"}, TypeError)])
def test_values_that_fit_no_field_fail_at_the_call(wrong: dict, kind: type[Exception]) -> None:
    with Client() as client, pytest.raises(kind):
        client.stream("Why?", **wrong)


class Failing(TextGenerationServiceServicer):
    """Fails the first calls with a code, the stream perhaps only after a piece of text; then answers."""

    def __init__(
        self, code: grpc.StatusCode, *, failures: int = 100, text_first: bool = False, pushback: str | None = None
    ) -> None:
        self.code, self.failures, self.text_first = code, failures, text_first
        self.trailers = (("x-request-id", "r1"), *([("grpc-retry-pushback-ms", pushback)] if pushback else []))
        self.calls = 0

    def Generate(self, request, context):
        self._fail(context)
        return pb.GenerateResponse(response="Blue.")

    def StreamGenerate(self, request, context):
        if self.text_first:
            yield pb.StreamGenerateResponse(response="Bl")
        self._fail(context)
        yield pb.StreamGenerateResponse(response="Blue.")

    def _fail(self, context):
        self.calls += 1
        if self.calls <= self.failures:
            context.set_trailing_metadata(self.trailers)
            context.abort(self.code, "not now")


def test_unavailable_is_tried_again(serve: Serve) -> None:
    failing = Failing(grpc.StatusCode.UNAVAILABLE, failures=2)
    with Client(serve(failing)) as client:
        assert [event.response for event in client.stream("Why?")] == ["Blue."]
    assert failing.calls == 3


def test_a_server_can_say_that_trying_again_is_of_no_use(serve: Serve) -> None:
    failing = Failing(grpc.StatusCode.UNAVAILABLE, pushback="-1")
    with Client(serve(failing)) as client, pytest.raises(CallError, match="not now"):
        client.generate("Why?")
    assert failing.calls == 1


def test_four_attempts_are_enough(serve: Serve) -> None:
    failing = Failing(grpc.StatusCode.UNAVAILABLE)
    with Client(serve(failing)) as client, pytest.raises(CallError, match="not now"):
        client.generate("Why?")
    assert failing.calls == 4


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_nothing_else_is_tried_again(serve: Serve, code: grpc.StatusCode) -> None:
    failing = Failing(code)
    with Client(serve(failing)) as client, pytest.raises(CallError) as caught:
        client.generate("Why?")
    assert (failing.calls, caught.value.code, caught.value.request_id) == (1, code, "r1")
    assert isinstance(caught.value.__cause__, grpc.RpcError)


def test_a_failure_in_mid_stream_comes_after_the_text_and_is_not_tried_again(serve: Serve) -> None:
    failing = Failing(grpc.StatusCode.UNAVAILABLE, text_first=True)
    with Client(serve(failing)) as client:
        events = client.stream("Why?")
        assert next(events).response == "Bl"
        with pytest.raises(CallError, match="UNAVAILABLE: not now"):
            next(events)
    assert failing.calls == 1


@pytest.mark.parametrize(
    ("options", "sent"), [({}, None), *(({"priority": name}, name) for name in ("high", "normal", "low"))]
)
@pytest.mark.parametrize("method", ["generate", "stream"])
def test_the_priority_goes_with_the_call(serve: Serve, method: str, options: dict, sent: str | None) -> None:
    recorder = Recorder()
    with Client(serve(recorder)) as client:
        answer = getattr(client, method)("Why?", **options)
        if method == "stream":
            list(answer)
    assert recorder.metadata[0].get("x-priority") == sent


def test_another_priority_fails_at_the_call() -> None:
    with Client() as client, pytest.raises(ValueError, match="priority must be one of high, normal, low, not 'urgent'"):
        client.stream("Why?", priority="urgent")  # type: ignore[arg-type]


class Endless(TextGenerationServiceServicer):
    """Gives one piece of text, then nothing until the call is cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def StreamGenerate(self, request, context):
        context.add_callback(self.cancelled.set)
        yield pb.StreamGenerateResponse(response="Bl")
        self.cancelled.wait(ANSWER_SECONDS)


def test_leaving_the_loop_cancels_on_the_server(serve: Serve) -> None:
    endless = Endless()
    with Client(serve(endless)) as client:
        for _ in client.stream("Why?"):
            break
        assert endless.cancelled.wait(ANSWER_SECONDS)


def test_closing_the_client_ends_a_running_stream(serve: Serve) -> None:
    endless = Endless()
    with Client(serve(endless)) as client:
        events = client.stream("Why?")
        next(events)
    assert endless.cancelled.wait(ANSWER_SECONDS)
    with pytest.raises(CallError, match="CANCELLED"):
        next(events)


def test_the_timeout_holds_for_the_whole_stream(serve: Serve) -> None:
    endless = Endless()
    with (
        Client(serve(endless), timeout_seconds=0.3) as client,
        pytest.raises(CallError, match="DEADLINE_EXCEEDED"),
    ):
        list(client.stream("Why?"))
    assert endless.cancelled.wait(ANSWER_SECONDS)


def test_exported_names() -> None:
    hidden = {"annotations", "client", "credentials", "errors", "explanations", "messages", "v1"}
    assert {name for name in vars(llamarpc) if not name.startswith("_")} - hidden == set(llamarpc.__all__)
