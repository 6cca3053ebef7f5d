"""How urgent a call is, and how callers say it. Knows no queue and no gRPC."""

from __future__ import annotations

from enum import IntEnum

from .errors import FieldViolation, InvalidRequest, clipped

PRIORITY_KEY = "x-priority"
"""The metadata key."""


class Priority(IntEnum):
    """How urgent a call is; the most urgent is the smallest."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


_PRIORITIES = {priority.name.lower(): priority for priority in Priority}


def priority_of(text: str) -> Priority:
    """The priority of this name. Raises InvalidRequest, which names the metadata key, for any other text."""
    if (priority := _PRIORITIES.get(text)) is None:
        allowed = ", ".join(_PRIORITIES)
        description = f"this metadata key must be one of {allowed}, not {clipped(text, 100)!r}"
        raise InvalidRequest((FieldViolation(field=PRIORITY_KEY, description=description),))
    return priority
