"""Whether calls are traced, and where their spans go: OpenTelemetry's own variables decide, `OTEL_...`.

Where they ask for nothing, nothing of OpenTelemetry is imported and a call costs nothing; it need not even be
installed. Knows no calls and no spans: `call_trace.py` makes them, and exporters are found among what is installed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from .call_trace import Tracing

_EXPORTER = "OTEL_TRACES_EXPORTER"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# Their names among the installed exporters. The first is OpenTelemetry's default in Python, and in our extra.
_OTLP = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_EXPORTERS = "opentelemetry_traces_exporter"


class TracingError(Exception):
    """Tracing is asked for and can't be had; the text says why, and what to do."""


def open_tracing(environment: Mapping[str, str], *, version: str) -> Tracing | None:
    """What the variables ask for, to be closed with `aclose()`; None where that is nothing. Raises TracingError.

    `version` is the server's. OpenTelemetry reads more of its variables by itself, from the process's environment.
    """
    names = exporters_of(environment)
    if not names:
        return None
    try:
        from .call_trace import Tracing
    except ImportError as error:
        raise TracingError(
            f"{_asking(environment)} asks for traces, but OpenTelemetry is not installed ({error}): "
            "pip install 'llamarpc[tracing]', or unset it"
        ) from error
    # It would write down the headers that it can't read. They are callers', who may send as many as they like.
    logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)
    try:
        exporters = [_exporter(name) for name in names]
        return Tracing(exporters, resource={"service.name": "llamarpc", "service.version": version})
    except TracingError:
        raise
    except Exception as error:  # exporters are anybody's, and fail in their own ways
        raise TracingError(
            f"{_asking(environment)} asks for traces, but {str(error) or type(error).__name__}"
        ) from error


def exporters_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the exporters that the variables ask for, that of OTLP with its protocol. Raises TracingError."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    named = environment.get(_EXPORTER, "").strip()
    if not named and _first(environment, _ENDPOINTS):
        named = "otlp"
    names = [name.strip() for name in named.split(",")]
    return tuple(_with_protocol(name, environment) for name in names if name and name.lower() != "none")


def _with_protocol(name: str, environment: Mapping[str, str]) -> str:
    if name != "otlp":
        return name
    variable = _first(environment, _PROTOCOLS)
    protocol = environment[variable].strip() if variable else "grpc"
    if protocol not in _OTLP:
        raise TracingError(f"{variable} is {protocol!r}, must be one of {', '.join(_OTLP)}")
    return _OTLP[protocol]


def _first(environment: Mapping[str, str], variables: tuple[str, ...]) -> str | None:
    """The first of the variables that says something: by OpenTelemetry's rules an empty one does not."""
    return next((each for each in variables if environment.get(each, "").strip()), None)


def _asking(environment: Mapping[str, str]) -> str:
    return _first(environment, (_EXPORTER, *_ENDPOINTS)) or _EXPORTER


def _exporter(name: str) -> SpanExporter:
    found = next(iter(entry_points(group=_EXPORTERS, name=name)), None)
    if found is None:
        there = ", ".join(sorted({each.name for each in entry_points(group=_EXPORTERS)})) or "none"
        package = f"opentelemetry-exporter-{name.replace('_', '-')}"
        raise TracingError(
            f"there is no exporter {name!r} of traces; installed: {there}. pip install {package}, or choose another "
            f"with {_EXPORTER}"
        )
    exporter: SpanExporter = found.load()()
    return exporter
