"""Define `attempt.json`: how long one attempt of a trial held its GPUs, and how it ended."""

from __future__ import annotations

from pydantic import Field

from tune.spec.base import FrozenModel, NonNegativeFloat
from tune.spec.failure import FailureCause, FailureEvidence


class Phases(FrozenModel):
    """Hold the seconds that each phase of an attempt held the GPUs.

    `drain_s` is the time after each run until no worker held one of its requests. `search_s` is idle time in
    which the next rate was computed. Time beyond the sum is the attempt's start and end.
    """

    bring_up_s: NonNegativeFloat = 0.0
    warm_up_s: NonNegativeFloat = 0.0
    probes_s: NonNegativeFloat = 0.0
    drain_s: NonNegativeFloat = 0.0
    search_s: NonNegativeFloat = 0.0


class AttemptRecord(FrozenModel):
    """Hold `raw/<attempt>/attempt.json`, the last file that the backend writes for an attempt.

    `occupied_s` is how long the attempt held its GPUs. `error` is None when all probes ran, else the text of
    the failure, `cause` its class (tune.spec.failure), and `evidence` the line that tells it, absent where
    none does. Times are ISO 8601 in UTC. `phases` is None where no process of the attempt lived long enough
    to record them. `failed_nodes` are the hosts that the scheduler blames for the end; absent where it blames
    none. `image_sha256` is the digest of the image's file; absent where there is none, or it was not read to
    its end.
    """

    started_at: str
    ended_at: str
    occupied_s: NonNegativeFloat
    error: str | None = None
    cause: FailureCause | None = None
    evidence: FailureEvidence | None = Field(default=None, exclude_if=lambda evidence: evidence is None)
    phases: Phases | None = None
    failed_nodes: tuple[str, ...] | None = Field(default=None, exclude_if=lambda nodes: nodes is None)
    image_sha256: str | None = Field(default=None, exclude_if=lambda digest: digest is None)
