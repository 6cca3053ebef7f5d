"""Makes bundles: the folder that joins a model's weights, its tokenizer and Triton's model repository.

`python -m engine_build` is the way in. Knows nothing of the server; the bundle is the only thing they share.
"""
