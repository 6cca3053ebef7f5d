"""A stand-in for the CPU engine behind the same Triton contract, whose every id is known beforehand."""

from .script import Script, greedy_ids, scripted_ids

__all__ = ["Script", "greedy_ids", "scripted_ids"]
