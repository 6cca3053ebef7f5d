"""Property tests here are many and small: few examples each, the same ones on every run, nothing kept on disk."""

from hypothesis import settings

settings.register_profile("fast", max_examples=40, deadline=None, derandomize=True, database=None)
settings.load_profile("fast")
