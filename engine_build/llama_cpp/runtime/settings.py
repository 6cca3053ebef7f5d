"""The engine's settings: the string parameters of config.pbtxt, read once."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .usable_cores import usable_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Lengths in tokens. `threads` is already the number to use; `adapters` are files by their task id."""

    gguf: str
    parallel_requests: int
    context_length: int
    threads: int
    prefill_chunk: int
    adapters: Mapping[int, str] = field(default_factory=dict)


# What every bundle has; those without adapters have nothing to say of them.
_REQUIRED = ("gguf", "parallel_requests", "context_length", "threads", "prefill_chunk")


def settings_from_parameters(parameters: Mapping[str, Mapping[str, str]]) -> EngineSettings:
    """Read `parameters` of Triton's model configuration: {name: {"string_value": text}}.

    Raises:
        ValueError: a parameter is missing or out of range; the text names it.
    """
    texts = {name: value["string_value"] for name, value in parameters.items()}
    missing = [name for name in _REQUIRED if name not in texts]
    if missing:
        raise ValueError(f"config.pbtxt lacks the parameter {', '.join(missing)}; build the bundle again")
    return EngineSettings(
        gguf=texts["gguf"],
        parallel_requests=_integer(texts, "parallel_requests", 1),
        context_length=_integer(texts, "context_length", 2),
        threads=_integer(texts, "threads", 0) or usable_cores(),
        prefill_chunk=_integer(texts, "prefill_chunk", 1),
        adapters=_adapters(texts.get("lora_adapters", "")),
    )


def _adapters(text: str) -> dict[int, str]:
    """`1=lora-1.gguf,2=lora-2.gguf`, and nothing for none."""
    found: dict[int, str] = {}
    for entry in text.split(",") if text else ():
        number, _, file = entry.partition("=")
        if not (number.isascii() and number.isdigit() and file) or int(number) in found:
            raise ValueError(
                f"parameter lora_adapters of config.pbtxt is {text!r}; it must be like 1=lora-1.gguf,2=lora-2.gguf"
            )
        found[int(number)] = file
    return found


def _integer(texts: Mapping[str, str], name: str, minimum: int) -> int:
    text = texts[name]
    if not text.isascii() or not text.isdigit() or int(text) < minimum:
        raise ValueError(
            f"parameter {name} of config.pbtxt is {text!r}; it must be a whole number of at least {minimum}"
        )
    return int(text)
