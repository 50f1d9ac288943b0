"""Name the checkpoint that the workers of a trial load."""

from __future__ import annotations

from tune.engines.registry import engine_of
from tune.manifest.expected_checkpoint import ExpectedCheckpoint
from tune.spec.cluster import ClusterFacts
from tune.spec.mounts import host_path
from tune.spec.trial import TrialSpec


def expected_checkpoint(spec: TrialSpec, facts: ClusterFacts) -> ExpectedCheckpoint | None:
    """Return what the folder of the checkpoint has to hold.

    None where workers load no weights, or a repository by its name instead of a folder.
    """
    loads = engine_of(spec).computes_tokens and (spec.prefill.loads_weights or spec.decode.loads_weights)
    if not loads or not facts.model_path.startswith("/"):
        return None
    return ExpectedCheckpoint(
        folder=host_path(facts.model_path, facts), model=spec.model, kv_dtype=spec.decode.kv_dtype
    )
