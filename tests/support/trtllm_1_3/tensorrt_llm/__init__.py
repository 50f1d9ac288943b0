"""Stand for TensorRT-LLM, which cannot be had as a wheel: its classes of arguments, no computation."""
