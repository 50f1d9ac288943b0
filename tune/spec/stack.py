"""Hold which serving software runs a deployment, and its ports."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from tune.spec.base import PositiveInt
from tune.spec.engine_table import EngineName, settings_class
from tune.spec.environment import WithEnvironment


def _known_to_the_engine(generation: str, info: ValidationInfo) -> str:
    engine: str | None = info.data.get("engine")
    known = (generation,) if engine is None else settings_class(engine).GENERATIONS
    if generation not in known:
        raise PydanticCustomError("generation", f"expected {' or '.join(known)} with stack.engine={engine}")
    return generation


class Stack(WithEnvironment):
    """Hold the generation of Dynamo, the engine behind it, and the ports of its servers.

    `name` begins with the generation: dynamo_v0 (mid 2025) or dynamo_v1 (1.x). `engine` is a name of the
    table in tune/spec/engine_table.py, and `engine_yaml` a generation of the engine's settings file, of those
    that its class of settings names. `system_port` is where the first worker answers /health and /metrics,
    the next one a port further, prefill workers first; None where workers open no such port. `env` reaches
    the services, the frontends and the client. `engine_schema` is a file with the arguments of the engine's
    version, against which its settings file is checked.
    """

    name: Annotated[str, Field(pattern=r"^dynamo_v[01](_\w+)?$")]
    engine: EngineName
    engine_yaml: Annotated[str, AfterValidator(_known_to_the_engine)]
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
