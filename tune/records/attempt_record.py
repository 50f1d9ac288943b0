"""Read and write `attempt.json`: how one attempt of a trial ended."""

from __future__ import annotations

from typing import Literal

from tune.spec.base import FrozenModel, NonNegativeFloat


class Phases(FrozenModel):
    """What an attempt held its GPUs for. The rest of that time, if any, is its beginning and its end.

    `drain_s`: after the end of each run, until no worker held a request of it. `search_s`: idle, while it was
    reckoned which rate to ask next.
    """

    bring_up_s: NonNegativeFloat = 0.0
    warm_up_s: NonNegativeFloat = 0.0
    probes_s: NonNegativeFloat = 0.0
    drain_s: NonNegativeFloat = 0.0
    search_s: NonNegativeFloat = 0.0


class AttemptRecord(FrozenModel):
    """`raw/<attempt>/attempt.json`: how long an attempt held its GPUs. The place that ran it writes it last.

    `error` is None when all probes ran; otherwise what broke, and `cause` says what broke: the "configuration" (an
    engine rejected its configuration, memory ran out) or the "infrastructure" (a node, the network, our own fault).
    Times are ISO 8601 in UTC. `phases` is None where nobody lived to tell.
    """

    started_at: str
    ended_at: str
    held_s: NonNegativeFloat
    error: str | None = None
    cause: Literal["configuration", "infrastructure"] | None = None
    phases: Phases | None = None
