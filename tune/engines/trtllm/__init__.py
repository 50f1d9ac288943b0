"""Write TensorRT-LLM's engine YAML in both generations of its key names."""
