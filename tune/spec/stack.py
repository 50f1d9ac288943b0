"""Which generation of the serving software runs the deployment, and its ports."""

from __future__ import annotations

from typing import Literal

from tune.spec.typed import PositiveInt, Typed


class Stack(Typed):
    """`flat`: TensorRT-LLM 1.0.0rc before rc4, the seed's. `nested`: today's engine YAML."""

    name: Literal["dynamo_v0", "dynamo_v1"]
    engine_yaml: Literal["flat", "nested"]
    router_mode: Literal["round-robin", "random", "least-loaded"]
    frontend_port: PositiveInt
    etcd_client_port: PositiveInt
    etcd_peer_port: PositiveInt
    nats_port: PositiveInt
