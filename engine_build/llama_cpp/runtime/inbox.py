"""Reads what Triton hands to `execute`. Knows Triton's request objects; knows no engine."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from .errors import RequestError
from .tensors import Tensors


def input_tensors(request: pb_utils.InferenceRequest) -> Tensors:
    """The request's inputs by name."""
    tensors: dict[str, Any] = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
    return tensors


def stop_target(request: pb_utils.InferenceRequest) -> str:
    """The id of the request that a stop command ends.

    Raises:
        RequestError: it names none.
    """
    request_id: str = request.request_id()
    if not request_id:
        raise RequestError("Trying to stop a request but request ID is not provided")
    return request_id


def check_requested_outputs(request: pb_utils.InferenceRequest) -> None:
    """As upstream: who names outputs has to name these two.

    Raises:
        RequestError: one is missing.
    """
    names = set(request.requested_output_names())
    for name in ("output_ids", "sequence_length"):
        if name not in names:
            raise RequestError(f"{name} tensor must be present in list of output tensors")
