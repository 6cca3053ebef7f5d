"""One log line per call, and how all log lines look: text for people, or JSON for collectors of logs.

A line holds what a `CallRecord` holds, so never a word of a prompt or an answer. Knows no gRPC and no settings.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

from .call_record import CallRecord

log = logging.getLogger("llamarpc.calls")

_MESSAGE = "call"
# Ends that are the server's or the engine's doing; all others are answers, also those that tell callers of a mistake.
_FAILURES = frozenset({"UNKNOWN", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


def log_call(record: CallRecord) -> None:
    """Writes the line of a call that has ended: a warning where the server failed, else information."""
    level = logging.WARNING if record.status in _FAILURES else logging.INFO
    if log.isEnabledFor(level):
        log.log(level, _MESSAGE, extra={_MESSAGE: record})


def log_handler(log_format: str) -> logging.Handler:
    """Writes log lines to standard error, in one of LOG_FORMATS."""
    handler = logging.StreamHandler()
    handler.setFormatter(LOG_FORMATS[log_format]())
    return handler


class TextFormatter(logging.Formatter):
    """A line of text. Only tracebacks take more than one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without its traceback."""
        if (call := _call_of(record)) is not None:
            record.message = _described(call)
        record.message = _printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """The traceback, whose text may be a caller's."""
        return "\n".join(_printable(line) for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """A line of JSON (RFC 8259, ASCII only), with a traceback in a field of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole line."""
        fields: dict[str, Any] = {
            "time": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (call := _call_of(record)) is not None:
            fields.update(_call_fields(call))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return json.dumps({name: _encodable(value) for name, value in fields.items() if value is not None})


LOG_FORMATS: dict[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def _call_of(record: logging.LogRecord) -> CallRecord | None:
    call = getattr(record, _MESSAGE, None)
    return call if isinstance(call, CallRecord) else None


def _call_fields(call: CallRecord) -> dict[str, str | int | float | None]:
    """The fields of a call's line in their order; None where there is nothing to tell."""
    return {
        "method": call.method,
        "status": call.status,
        "reason": call.reason,
        "request_id": call.request_id,
        "caller": call.caller,
        "model": call.model,
        "adapter": call.adapter,
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "finish_reason": call.finish_reason,
        "queue_ms": _milliseconds(call.queue_seconds),
        "first_token_ms": _milliseconds(call.first_token_seconds),
        "duration_ms": _milliseconds(call.duration_seconds),
    }


def _described(call: CallRecord) -> str:
    fields = _call_fields(call)
    method, status = fields.pop("method"), fields.pop("status")
    told = " ".join(f"{name}={_quoted(value)}" for name, value in fields.items() if value is not None)
    return f"{_MESSAGE} {method} {status} {told}"


def _quoted(value: Any) -> Any:
    """Text that could pass for several fields in quotes; names of certificates may be such."""
    return json.dumps(value) if isinstance(value, str) and any(each in value for each in ' ="') else value


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encodable(value: Any) -> Any:
    """Text without lone surrogates, which JSON can escape but many readers refuse; all else as it is."""
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _printable(text: str) -> str:
    """The text with all that could end the line, move a terminal's cursor or not be encoded written as escapes."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
