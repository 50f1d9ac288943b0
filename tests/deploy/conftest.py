from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tune.config import compose_overrides
from tune.spec.cluster import ClusterFacts

MakeFacts = Callable[..., ClusterFacts]


@pytest.fixture(scope="session")
def make_facts() -> MakeFacts:
    """Build the shipped facts of a Slurm cluster with changes."""
    slurm = compose_overrides(["cluster=slurm"]).settings.cluster.model_dump(mode="json")

    def make(**changes: Any) -> ClusterFacts:
        return ClusterFacts.model_validate_json(json.dumps(slurm | changes))

    return make
