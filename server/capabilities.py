"""What the served model and its engine can do, and which requests need more than that.

Knows the bundle and requests; nothing that a request asks for is ignored where it can't be had.
"""

from __future__ import annotations

from llamarpc.v1 import model_pb2, text_generation_pb2

from .bundle import Bundle
from .errors import AdapterNotFound, ModelNotFound, UnsupportedField

# All guides travel as grammars (`chat/guides.py`), so this mode of TensorRT-LLM's guided decoding is what counts.
_GRAMMARS = "ebnf_grammar"
_NEED_GRAMMARS = ("tools", "functions", "tool_choice", "response_format")


def follows_guides(bundle: Bundle) -> bool:
    """Whether the engine can be held to a grammar."""
    return _GRAMMARS in bundle.guided_decoding


def capabilities_of(bundle: Bundle) -> model_pb2.Capabilities:
    """What requests may use."""
    guided = follows_guides(bundle)
    return model_pb2.Capabilities(
        tools=guided,
        functions=guided,
        json_object=guided,
        json_schema=guided,
        regex=guided,
        grammar=guided,
        lora=bool(bundle.adapters),
        time_limit=True,
    )


def check_capabilities(request: text_generation_pb2.GenerateRequest, bundle: Bundle, *, path: str = "") -> None:
    """Raises ModelNotFound, AdapterNotFound or UnsupportedField where the request asks for what is not there."""
    check_model(request.model, bundle)
    if request.lora and request.lora not in bundle.adapters:
        raise AdapterNotFound(adapter=request.lora, available=tuple(sorted(bundle.adapters)))
    if follows_guides(bundle):
        return
    used = {descriptor.name for descriptor, _ in request.ListFields()}
    for field in _NEED_GRAMMARS:
        if field in used and not _is_plain_text(field, request):
            raise UnsupportedField(path + field, reason="it has no guided decoding with grammars")


def check_model(model: str, bundle: Bundle) -> None:
    """Raises ModelNotFound unless `model` is empty or the served one."""
    if model and model != bundle.model_id:
        raise ModelNotFound(model=model, available=(bundle.model_id,))


def _is_plain_text(field: str, request: text_generation_pb2.GenerateRequest) -> bool:
    return field == "response_format" and request.response_format.WhichOneof("format") in (None, "text")
