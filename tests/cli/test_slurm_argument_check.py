"""Test that a job asks its nodes' software: real Slurm and orchestrator, a stand-in for TensorRT-LLM."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.argument_checks import NESTED, WORDS
from support.local_trials import Start, printed
from support.slurm_rack import SlurmRack
from support.slurm_runs import attempts, outcomes, record
from support.slurm_trials import stubbed

pytestmark = pytest.mark.slow

IMAGE = ("stack=dynamo_v1", f"+prefill.env.PYTHONPATH={NESTED}")


def test_refused_key_ends_the_trial_before_a_worker_starts(
    start: Start, slurm: SlurmRack, tmp_path: Path
) -> None:
    misspelt = "+decode.extra.moe_confg={backend: X}"
    words = (*slurm.words, *WORDS, *IMAGE, *stubbed(tmp_path / "stub"), misspelt)
    process = start(*words)
    said = printed(process)
    assert process.returncode == 1, said
    assert "Extra inputs are not permitted" in said
    (outcome,) = outcomes(tmp_path)
    assert outcome["status"] == "infeasible"
    (attempt,) = attempts(tmp_path)
    assert record(attempt).cause == "configuration"
    logs = sorted(path.name for path in (attempt / "logs").iterdir())
    assert logs == ["g01_argument_check.out", "g01_evidence.out"]


HEATED = """#!/bin/sh
case "$*" in *counters*) ;; *) exit 9 ;; esac
us=0; [ -e "$0.$SLURMD_NODENAME" ] && us=5000000; : > "$0.$SLURMD_NODENAME"
[ "$SLURMD_NODENAME" = g02 ] || us=0
printf '0, 1200.00, 1200.00, %s, 0, 0, 0\\n1, 1200.00, 1200.00, 0, 0, 0, 0\\n' $us
"""
"""Act as nvidia-smi on nodes with two GPUs, of which one of g02 was too hot for five seconds."""


def test_accepted_plan_runs(
    start: Start, slurm: SlurmRack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubs = stubbed(tmp_path / "stub")
    monkeypatch.setenv("PATH", str(tmp_path / "stub" / "services"), prepend=":")
    nvidia_smi = tmp_path / "stub" / "services" / "nvidia-smi"
    nvidia_smi.write_text(HEATED)
    nvidia_smi.chmod(0o755)
    process = start(*slurm.words, *WORDS, *IMAGE, *stubs)
    said = printed(process)
    (outcome,) = outcomes(tmp_path)
    assert outcome["status"] == "measured", said
    evidence = outcome["provenance"]["evidence"]
    assert evidence["nodes"] == ["g01", "g02", "g03"]
    assert not [name for name in evidence["missing"] if name.startswith("report of")], "every node reported"
    assert " on " not in evidence["versions"]["Python"], "all nodes are one machine"
    clocks = next(check for check in outcome["checks"] if check["name"] == "clocks")
    assert clocks["result"] == "off", clocks
    assert clocks["found"].startswith("GPU 0 of g02 was held down by heat, in hardware for 5 of "), clocks
    (log,) = tmp_path.glob("runs/*/jobs/1/*_log.out")
    assert "the software accepts prefill.yaml, decode.yaml" in log.read_text()
    assert "command line of frontend not checked, because" in log.read_text()
