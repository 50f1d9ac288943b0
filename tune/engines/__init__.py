"""TensorRT-LLM's engine YAML, in both generations of its key names."""

from tune.engines.trtllm.yaml_text import engine_keys, engine_yaml

__all__ = ["engine_keys", "engine_yaml"]
