"""Adapt TensorRT-LLM, in both generations of its YAML, behind both generations of Dynamo."""
