"""The gRPC service: `python -m server`. Settings in `config.py`, the wiring in `serve.py`."""
