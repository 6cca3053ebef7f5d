"""The engine's gauges on Triton's metrics port, under TensorRT-LLM's own name and labels."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

from .scheduler import Counts


class RequestMetrics:
    """`nv_trt_llm_request_metrics`: requests now, by `request_type` waiting, active, scheduled, and max."""

    def __init__(self, model: str, version: str) -> None:
        self._family = pb_utils.MetricFamily(
            name="nv_trt_llm_request_metrics", description="TRT LLM request metrics", kind=pb_utils.MetricFamily.GAUGE
        )
        self._gauges = {
            request_type: self._family.Metric(labels={"model": model, "version": version, "request_type": request_type})
            for request_type in ("waiting", "active", "scheduled", "max")
        }

    def set(self, counts: Counts) -> None:
        """Publish the numbers."""
        for request_type, gauge in self._gauges.items():
            gauge.set(getattr(counts, request_type))
