"""Describe a recipe as it was read: what it says of engines, rack, frontends, load and model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from tune.spec.split import Role
from tune.spec.stack import Stack

if TYPE_CHECKING:
    from tune.recipes.kept_settings import KeptSettings

Head = Literal["prefill", "decode", "none"]

ROUTER_MODES: tuple[str, ...] = get_args(Stack.model_fields["router_mode"].annotation)
REQUEST_PLANES = ("tcp", "nats")
"""The router modes and request planes that tune has a setting for."""


@dataclass(frozen=True)
class LeftOut:
    """Hold a part of a recipe that is not taken over; `line` is 0 where the recipe does not state it."""

    path: str
    value: str
    line: int
    reason: str


@dataclass(frozen=True)
class Lines:
    """Name lines of a file, from `first` to `last`, None for its end."""

    file: str
    first: int = 1
    last: int | None = None


@dataclass(frozen=True)
class Pool:
    """Hold the workers of one role: their number, the GPUs of each, and what all of them are given.

    `engine_keys` are the keys of the engine's YAML, with their values as a parser reads them; `stated` says
    where they stand.
    """

    workers: int
    gpus_per_worker: int
    engine_keys: Mapping[str, Any]
    env: Mapping[str, str | None]
    stated: tuple[Lines, ...] = ()


@dataclass(frozen=True)
class Rack:
    """Hold the nodes of a recipe; `gpu` is the name of its GPU, such as gb200, None where it states none.

    `head` is the pool whose first worker shares node 0 with services and frontend.
    """

    nodes: int
    gpus_per_node: int
    gpu: str | None
    head: Head = "prefill"


@dataclass(frozen=True)
class Routing:
    """Hold the frontends and how requests reach the workers; None leaves a choice to tune."""

    frontends: int = 1
    router_mode: str | None = None
    request_plane: str | None = None
    env: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def left_out(self) -> Iterator[LeftOut]:
        """Yield what tune has no setting for."""
        if self.router_mode not in (None, *ROUTER_MODES):
            yield LeftOut("router mode", str(self.router_mode), 0, f"tune has {', '.join(ROUTER_MODES)}")
        if self.request_plane not in (None, *REQUEST_PLANES):
            yield LeftOut(
                "request plane", str(self.request_plane), 0, f"tune has {', '.join(REQUEST_PLANES)}"
            )


@dataclass(frozen=True)
class Lengths:
    """Hold the tokens of prompts and answers: from `lowest_share` of the stated number up to it."""

    input_tokens: int
    output_tokens: int
    lowest_share: float = 1.0


@dataclass(frozen=True)
class OfferedRate:
    """Hold an open loop: queries/s, and the most requests at once, None where nothing limits them."""

    qps: float
    most_at_once: int | None = None


@dataclass(frozen=True)
class ClosedLoop:
    """Hold a closed loop: each number of users that is measured, and the queries of one, None if unstated."""

    users: tuple[int, ...]
    queries_per_user: int | None = None

    @property
    def most(self) -> int:
        """Return the users of the fullest rack, whose load is that of the imported trial."""
        return max(self.users)


@dataclass(frozen=True)
class ServedModel:
    """Hold what a recipe says of its model: folder or repository, name in requests, number format."""

    path: str
    repository: str | None = None
    served_name: str | None = None
    precision: str | None = None


@dataclass(frozen=True)
class Recipe:
    """Hold a recipe as it was read.

    `origin` is its file with the format, in words. `engine` is a name of the table of engines. `pools` holds
    a prefill and a decode pool, or aggregated workers alone. `cluster` holds the settings of the group
    `cluster` that it states, by their names. `dynamo` is the version of Dynamo, and `arrivals` what its
    benchmark sends, None where none is stated. `stated` holds its files. `kept` holds settings of the trial
    that was exported, None for a recipe of others.
    """

    name: str
    origin: str
    engine: str
    pools: Mapping[Role, Pool]
    rack: Rack
    routing: Routing
    lengths: Lengths | None
    model: ServedModel
    cluster: Mapping[str, Any]
    dynamo: str | None
    left_out: tuple[LeftOut, ...]
    arrivals: OfferedRate | ClosedLoop | None = None
    stated: tuple[Lines, ...] = ()
    kept: KeptSettings | None = None

    @property
    def is_aggregated(self) -> bool:
        """Return whether the workers prefill and decode."""
        return "aggregated" in self.pools


def version_of_image(image: str) -> str | None:
    """Return the version of Dynamo by the tag of its own image, None for any other image."""
    name, _, tag = image.rpartition(":")
    return tag if name.endswith(("tensorrtllm-runtime", "vllm-runtime")) else None
