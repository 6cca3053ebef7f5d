"""The engine behind Triton Inference Server: the only place that knows Triton, its protocol and its tensors."""
