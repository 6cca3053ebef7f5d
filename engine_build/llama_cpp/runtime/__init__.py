"""The CPU engine as Triton serves it: llama.cpp behind TensorRT-LLM's `tensorrt_llm` tensors.

The build copies every file of this folder into the model's version folder, where Triton's Python backend imports
`model.py`; the relative imports work in both places. Nothing here may import the rest of `engine_build`.
"""
