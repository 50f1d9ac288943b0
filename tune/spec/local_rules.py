"""What one machine cannot run."""

from __future__ import annotations

from tune.spec.findings import Finding
from tune.spec.trial import TrialSpec


def check_local(spec: TrialSpec) -> tuple[Finding, ...]:
    """Settings of `spec` that cluster=local has no room for."""
    if spec.stack.mocked or spec.hardware.nodes == 1:
        return ()
    return (
        Finding(
            "error",
            "stack",
            f"{spec.stack.name} on {spec.hardware.nodes} nodes with cluster=local",
            "stack=dynamo_v1_mocker, or hardware.nodes=1",
            "every node index is this machine: workers of several nodes would take the same GPUs",
            "tune/backends/local.py",
        ),
    )
