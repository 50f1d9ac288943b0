"""Return how much KV cache the workers of a trial hold, by its engine."""

from __future__ import annotations

from tune.engines.registry import engine_of
from tune.spec.memory import mean_sequences_that_fit
from tune.spec.split import Role
from tune.spec.trial import TrialSpec
from tune.workload.length_summary import mean_sequence


def kv_capacity_tokens(spec: TrialSpec, role: Role) -> int:
    """Return the tokens of KV cache of a worker of the pool `role`; 0 where no memory is left.

    With attention data parallelism they are those of one rank, in whole blocks.
    """
    engine = spec.engine(role)
    tokens = engine_of(spec).kv_capacity_tokens(spec.model, spec.hardware, engine)
    return tokens // (engine.attention_ranks * engine.kv_block_tokens) * engine.kv_block_tokens


def decode_batch_that_kv_holds(spec: TrialSpec) -> int:
    """Return the most sequences of mean length whose KV cache one worker that decodes holds at once."""
    mean = mean_sequence(spec.load.dataset)
    on_rank = mean_sequences_that_fit(kv_capacity_tokens(spec, "decode"), spec.decode, mean)
    return spec.decode.attention_ranks * on_rank
