"""Which generation of the serving software runs the deployment, and its ports."""

from __future__ import annotations

from typing import Literal

from tune.spec.base import FrozenModel, PositiveInt

MOCKED_STACK = "dynamo_v1_mocker"


class Stack(FrozenModel):
    """`flat`: TensorRT-LLM 1.0.0rc before rc4, the seed's. `nested`: today's engine YAML.

    `dynamo_v1_mocker` is Dynamo 1.x without GPUs: its mock engines take our step times.
    `system_port`: where the first worker answers /health and /metrics, the next one a port further, prefill
    workers first; None where workers open no such port.
    """

    name: Literal["dynamo_v0", "dynamo_v1", "dynamo_v1_mocker"]
    engine_yaml: Literal["flat", "nested"]
    router_mode: Literal["round-robin", "random", "least-loaded"]
    frontend_port: PositiveInt
    etcd_client_port: PositiveInt
    etcd_peer_port: PositiveInt
    nats_port: PositiveInt
    system_port: PositiveInt | None

    @property
    def mocked(self) -> bool:
        """Whether the engines are mock engines, which compute nothing and need no GPU."""
        return self.name == MOCKED_STACK

    @property
    def keeps_processes(self) -> bool:
        """Whether a worker may come and go while the others serve: Dynamo 1.x's discovery is made for it."""
        return self.name != "dynamo_v0"
