"""Hold which serving software runs a deployment, and its ports."""

from __future__ import annotations

from typing import Annotated, Any, Literal

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


GENERATIONS = {
    "dynamo_v0": "Dynamo of mid 2025, before 0.4",
    "dynamo_v04": "Dynamo 0.4 to 0.6",
    "dynamo_v07": "Dynamo 0.7 to 0.9",
    "dynamo_v1": "Dynamo 1.0 to 1.6",
}
"""Versions of Dynamo that each generation is, by the beginning of a stack's name. Source: Dynamo, ledger of
deprecations of 1.6.2 (docs.nvidia.com/dynamo)."""


def generation_of(name: str) -> str:
    """Return the generation of Dynamo with which the name of a stack begins."""
    return "_".join(name.split("_")[:2])


def _absent_where_none() -> Any:
    """Return a field that is None by default, and then absent from records and identity."""
    return Field(default=None, exclude_if=lambda value: value is None)


class Stack(WithEnvironment):
    """Hold the generation of Dynamo, the engine behind it, and the ports of its servers.

    `name` begins with the generation, one of GENERATIONS. `engine` is a name of the
    table in tune/spec/engine_table.py, and `engine_yaml` a generation of the engine's settings file, of those
    that its class of settings names. `system_port` is where the first worker answers /health and /metrics,
    the next one a port further, prefill workers first; None where workers open no such port. `env` reaches
    the services, the frontends and the client. `engine_schema` is a file with the arguments of the engine's
    version, against which its settings file is checked. `request_plane` and `discovery` say how requests
    reach the workers and by what processes find each other; None leaves both to the generation.
    """

    name: Annotated[str, Field(pattern=r"^dynamo_v(0|04|07|1)(_\w+)?$")]
    engine: EngineName
    engine_yaml: Annotated[str, AfterValidator(_known_to_the_engine)]
    router_mode: Literal["round-robin", "random", "least-loaded", "kv"]
    frontend_port: PositiveInt
    etcd_client_port: PositiveInt
    etcd_peer_port: PositiveInt
    nats_port: PositiveInt
    engine_schema: Annotated[str | None, _absent_where_none()]
    system_port: PositiveInt | None
    request_plane: Annotated[Literal["tcp", "nats"] | None, _absent_where_none()]
    discovery: Annotated[Literal["etcd", "file"] | None, _absent_where_none()]

    @property
    def dynamo(self) -> Literal["v0", "v1"]:
        """Return v0 where workers of the first pool route to the second, v1 where the frontend does."""
        return "v1" if self.generation in ("dynamo_v07", "dynamo_v1") else "v0"

    @property
    def generation(self) -> str:
        """Return the generation of Dynamo, a key of GENERATIONS."""
        return generation_of(self.name)

    @property
    def requests_over(self) -> Literal["tcp", "nats"]:
        """Return how requests reach the workers."""
        return self.request_plane or ("tcp" if self.generation == "dynamo_v1" else "nats")

    @property
    def needs_nats(self) -> bool:
        """Return whether a NATS server runs: before 1.0 events pass through it too."""
        return self.generation != "dynamo_v1" or self.requests_over == "nats"

    @property
    def shares_files(self) -> bool:
        """Return whether processes find each other by files in a folder, without etcd."""
        return self.discovery == "file"

    @property
    def workers_may_leave(self) -> bool:
        """Return whether workers may come and go while others serve, which Dynamo 1.x's discovery allows."""
        return self.generation == "dynamo_v1"
