"""Return how much KV cache the workers of a trial hold, by its engine."""

from __future__ import annotations

from tune.engines.registry import engine_of
from tune.spec.memory import mean_sequences_that_fit
from tune.spec.split import Role
from tune.spec.trial import TrialSpec
from tune.workload.length_summary import mean_sequence


def kv_capacity_tokens(spec: TrialSpec, role: Role) -> int:
    """Return the tokens of KV cache that a worker of the pool `role` holds; 0 where no memory is left."""
    return engine_of(spec).kv_capacity_tokens(spec.model, spec.hardware, spec.engine(role))


def decode_batch_that_kv_holds(spec: TrialSpec) -> int:
    """Return the most sequences of mean length whose KV cache one worker that decodes holds at once."""
    mean = mean_sequence(spec.load.dataset)
    return mean_sequences_that_fit(kv_capacity_tokens(spec, "decode"), spec.decode, mean)
