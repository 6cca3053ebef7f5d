"""Bundles for the CPU: a GGUF file behind a Triton Python-backend model that drives llama.cpp."""
