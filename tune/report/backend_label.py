"""Name the backend that ran the trials, so that nobody takes a model's figure for a measurement."""

from __future__ import annotations

from tune.engines.registry import adapter_named
from tune.spec.backend_kinds import BACKEND_DECLARATIONS, BackendLabel, BackendName


def backend_label(backend: BackendName, engine: str) -> BackendLabel:
    """Return the texts for a backend that runs the engine of this name."""
    declaration = BACKEND_DECLARATIONS[backend]
    if not adapter_named(engine).computes_tokens:
        return declaration.mock_label
    return declaration.label
