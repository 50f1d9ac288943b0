"""The software of the nodes is asked in the job: real Slurm and orchestrator, a stand-in for TensorRT-LLM."""

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


def test_accepted_plan_runs(
    start: Start, slurm: SlurmRack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "stub" / "services"), prepend=":")
    process = start(*slurm.words, *WORDS, *IMAGE, *stubbed(tmp_path / "stub"))
    said = printed(process)
    (outcome,) = outcomes(tmp_path)
    assert outcome["status"] == "measured", said
    evidence = outcome["provenance"]["evidence"]
    assert evidence["nodes"] == ["g01", "g02", "g03"]
    assert not [name for name in evidence["missing"] if name.startswith("report of")], "every node reported"
    assert " on " not in evidence["versions"]["Python"], "all nodes are one machine"
    (log,) = tmp_path.glob("runs/*/jobs/1/*_log.out")
    assert "the software accepts prefill.yaml, decode.yaml" in log.read_text()
    assert "command line of frontend not checked, because" in log.read_text()
