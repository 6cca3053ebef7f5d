"""Chat on token ids: prompts, detokenizing, stop strings. Knows no gRPC, no protobuf, no Triton and no settings."""
