"""What is known of a call when it has ended: the one value that logs, metrics and traces are made of.

Holds no text of prompts or answers. Knows no gRPC: the status is its name.
"""

from __future__ import annotations

from dataclasses import dataclass

# By OpenTelemetry's conventions for generative AI, in metrics and traces alike: they have no provider for a server of
# its own, and ask for a custom value then.
PROVIDER = "llamarpc"
OPERATION = "chat"
GENERATION_METHODS = {
    "/llamarpc.v1.TextGenerationService/Generate": False,
    "/llamarpc.v1.TextGenerationService/StreamGenerate": True,
}
"""Methods that generate, and whether they stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One call of our services, after its end. Times are in seconds."""

    method: str
    """Full name, such as `/llamarpc.v1.TextGenerationService/Generate`."""
    request_id: str
    status: str
    """Name of the gRPC status: OK, CANCELLED (the caller hung up), UNAVAILABLE, ..."""
    reason: str | None = None
    """ErrorReason without its prefix, where the call failed."""
    caller: str | None = None
    """Name of the caller's token or certificate."""
    model: str | None = None
    adapter: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """Generated so far, also where the call ended early."""
    finish_reason: str | None = None
    """Name of the FinishReason without its prefix, where there is one."""
    queue_seconds: float | None = None
    """How long it waited for admission; None where it did not come to that."""
    first_token_seconds: float | None = None
    """From the call's arrival."""
    duration_seconds: float
