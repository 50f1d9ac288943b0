"""Hold which serving software runs a deployment, and its ports."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tune.spec.base import PositiveInt
from tune.spec.environment import WithEnvironment


class Stack(WithEnvironment):
    """Hold the generation of Dynamo, the engine behind it, and the ports of its servers.

    `name` begins with the generation: dynamo_v0 (mid 2025) or dynamo_v1 (1.x). `engine` is a name of the
    table in tune/engines/registry.py. `engine_yaml` is the generation of TensorRT-LLM's YAML: `flat` is
    1.0.0rc before rc4, `nested` is today's. `system_port` is where the first worker answers /health and
    /metrics, the next one a port further, prefill workers first; None where workers open no such port. `env`
    reaches the services, the frontends and the client. `engine_schema` is a file with the arguments of the
    engine's version, against which its YAML is checked.
    """

    name: Annotated[str, Field(pattern=r"^dynamo_v[01](_\w+)?$")]
    engine: str
    engine_yaml: Literal["flat", "nested"]
    router_mode: Literal["round-robin", "random", "least-loaded"]
    frontend_port: PositiveInt
    etcd_client_port: PositiveInt
    etcd_peer_port: PositiveInt
    nats_port: PositiveInt
    engine_schema: Annotated[str | None, Field(default=None, exclude_if=lambda file: file is None)]
    system_port: PositiveInt | None

    @property
    def dynamo(self) -> Literal["v0", "v1"]:
        """Return the generation of Dynamo."""
        return "v0" if self.name.startswith("dynamo_v0") else "v1"

    @property
    def workers_may_leave(self) -> bool:
        """Return whether workers may come and go while others serve, which Dynamo 1.x's discovery allows."""
        return self.dynamo == "v1"
