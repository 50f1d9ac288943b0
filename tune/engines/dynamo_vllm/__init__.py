"""Adapt vLLM as a worker of Dynamo 1.x, with the KV cache sent by NIXL."""
