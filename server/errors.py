"""What can go wrong with a request, in the service's own words.

Knows neither gRPC nor Triton: `status.py` maps each of these to a gRPC status, `triton/engine.py` raises the engine's.

ServiceError
├── InvalidRequest        fields of the request are wrong, all of them listed
├── PromptTooLong         the prompt leaves no room for an answer
├── ModelNotFound         another model is served here
├── AdapterNotFound       the request names a LoRA adapter that the model does not have
├── GuideRefused          the engine can't follow the grammar that the answer must have
├── UnsupportedField      a field of the contract that the engine of this model can't honour
├── EngineUnavailable     the engine can't be reached or is not ready; safe to try again
├── EngineBusy            the engine refuses more work for now
├── EngineFailed          the engine failed while it worked on the request
├── DeadlineExceeded      the call's deadline passed while the engine worked
├── CallTooLong           the call took longer than the server lets any call take
├── Overloaded            no room to wait, or a wait that outlasts the call's deadline
├── CallerLimitReached    the caller has as many calls running as it may have
├── SlowReader            the caller did not read its answer
├── ShuttingDown          the server stops, and the call's time to finish is over
├── Unauthenticated       no token, or one that is unknown or expired
└── PermissionDenied      the token does not allow this method
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One wrong field: `field` is its path in the request, such as `messages[2].content`."""

    field: str
    description: str


# Error details travel in HTTP/2 trailers, of which clients accept 8 KiB by default.
MAX_LISTED_VIOLATIONS = 20


def clipped(text: str, limit: int) -> str:
    """The text, or its beginning where it takes more than `limit` bytes of a trailer.

    There, each byte of a character outside printable ASCII is written as three.
    """
    size = 0
    for index, character in enumerate(text):
        size += 1 if " " <= character <= "~" else 3 * len(character.encode(errors="replace"))
        if size > limit:
            return f"{text[:index]}…"
    return text


class ServiceError(Exception):
    """Base of the errors that callers are told about. The text is for people and holds nothing secret."""


class InvalidRequest(ServiceError):
    """Fields of the request are wrong. `violations` holds one entry per wrong field, the first 20 of more."""

    def __init__(self, violations: tuple[FieldViolation, ...]) -> None:
        listed = violations[:MAX_LISTED_VIOLATIONS]
        text = "; ".join(f"{each.field}: {each.description}" for each in listed)
        more = len(violations) - len(listed)
        super().__init__(f"{text}; and {more:,} more wrong fields" if more else text)
        self.violations = listed


class PromptTooLong(ServiceError):
    """The prompt fills the context, so nothing could be generated."""

    def __init__(self, *, field: str, prompt_tokens: int, context_length: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens, but the model's context holds {context_length} "
            "tokens of prompt and answer together; shorten the prompt"
        )
        self.field = field
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class ModelNotFound(ServiceError):
    """The request names a model that is not served here."""

    def __init__(self, *, model: str, available: tuple[str, ...]) -> None:
        model = clipped(model, 100)
        super().__init__(f"model {model!r} is not served here; served: {', '.join(available)}")
        self.model = model
        self.available = available


class AdapterNotFound(ServiceError):
    """The request names a LoRA adapter that the served model does not have."""

    def __init__(self, *, adapter: str, available: tuple[str, ...]) -> None:
        adapter = clipped(adapter, 100)
        there = f"there are {', '.join(available)}" if available else "it has none"
        super().__init__(f"the model has no LoRA adapter {adapter!r}; {clipped(there, 1_000)}")
        self.adapter = adapter
        self.available = available


class UnsupportedField(ServiceError):
    """The request uses a field that the engine of the served model can't honour."""

    def __init__(self, field: str, *, reason: str) -> None:
        super().__init__(f"{field} is not supported by this model's engine: {reason}; leave it out")
        self.field = field


class GuideRefused(ServiceError):
    """The engine can't follow the grammar made of the request's tools or response format."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the engine can't follow the grammar made of tools and response_format: {clipped(reason, 1_000)}; "
            "make schemas, patterns or the grammar simpler"
        )


class EngineUnavailable(ServiceError):
    """The engine can't be reached or is not ready. No answer is lost by trying again."""

    def __init__(self, reason: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(f"the engine is not available: {clipped(reason, 1_000)}")
        self.retry_after_seconds = retry_after_seconds


class EngineBusy(ServiceError):
    """The engine's queue is full."""

    def __init__(self, reason: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(f"the engine is busy: {clipped(reason, 1_000)}")
        self.retry_after_seconds = retry_after_seconds


class EngineFailed(ServiceError):
    """The engine reported a failure of this request."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the engine failed: {clipped(reason, 1_000)}")


class DeadlineExceeded(ServiceError):
    """The call's deadline passed while the engine worked on it."""

    def __init__(self) -> None:
        super().__init__("the deadline passed before the answer was complete")


class CallTooLong(ServiceError):
    """The call took longer than the server lets any call take."""

    def __init__(self, *, limit_seconds: float) -> None:
        super().__init__(
            f"the call took longer than the {limit_seconds:g} s that this server allows; ask for fewer tokens, or set "
            "time_limit to get what there is by then"
        )
        self.limit_seconds = limit_seconds


class Overloaded(ServiceError):
    """There is no room to wait, or the wait would outlast the call's deadline. Nothing was computed."""

    def __init__(self, reason: str, *, retry_after_seconds: float) -> None:
        super().__init__(f"the server is overloaded: {reason}; try again in {retry_after_seconds:.1f} s")
        self.retry_after_seconds = retry_after_seconds


class CallerLimitReached(ServiceError):
    """The caller has as many calls running or waiting as it may have."""

    def __init__(self, *, caller: str, limit: int, retry_after_seconds: float) -> None:
        super().__init__(f"{caller} may have {limit} calls at a time; wait for one of them to end")
        self.caller = caller
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds


class SlowReader(ServiceError):
    """The caller did not take a message of its stream for so long that the answer was given up."""

    def __init__(self, *, stalled_seconds: float) -> None:
        super().__init__(f"the answer was not read for {stalled_seconds:g} s, so its generation was ended")
        self.stalled_seconds = stalled_seconds


class ShuttingDown(ServiceError):
    """The server stops. No answer is lost by trying again, at another one."""

    def __init__(self, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__("the server is shutting down")
        self.retry_after_seconds = retry_after_seconds


class Unauthenticated(ServiceError):
    """There is no token with the call, or one that is unknown or expired. Which of them the text says."""

    def __init__(self, reason: str, *, advice: str = "send 'authorization: Bearer TOKEN' with the call") -> None:
        super().__init__(f"{reason}; {advice}")


class PermissionDenied(ServiceError):
    """The caller's token does not allow the method."""

    def __init__(self, *, caller: str, scope: str) -> None:
        super().__init__(f"the token of {caller} does not have the scope {scope!r} that this method needs")
        self.caller = caller
        self.scope = scope
