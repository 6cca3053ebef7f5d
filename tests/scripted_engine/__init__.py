"""A stand-in for the CPU engine behind the same Triton contract, whose every id is known beforehand."""

from .script import Script, scripted_ids

__all__ = ["Script", "scripted_ids"]
