"""Test that the GPUs are sampled before and after a probe, and that no hindrance ends an attempt."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.deployed import deployed_on_hosts
from support.fake_deployment import Trial

from tune.orchestrator import gpu_sampling
from tune.orchestrator.failures import AttemptFailed
from tune.orchestrator.gpu_sampling import sampled_gpus
from tune.records.gpu_samples import read_gpu_samples

COUNTS = """
n=$(cat "$0" 2>/dev/null || echo 0); echo $((n + 2000000)) > "$0"
for host in g01 g02; do echo "gpu $host 0, 700, 700, $n, 0, 0, 0"; done
"""
"""Both nodes have counted two more seconds whenever they are asked."""


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return Trial(tmp_path_factory.mktemp("trial"))


def test_samples_surround_the_probe(trial: Trial, tmp_path: Path) -> None:
    deployment = deployed_on_hosts(trial, "gpu_sample", "bash", "-c", COUNTS, str(tmp_path / "count"))
    with sampled_gpus(deployment, tmp_path, print):
        assert (tmp_path / "count").read_text() == "2000000\n"
    samples = read_gpu_samples(tmp_path)
    assert samples is not None
    assert samples.missing == {}
    for host in ("g01", "g02"):
        slowed_s = [gpus[host][0].slowed_s["hw_thermal_slowdown"] for gpus in (samples.before, samples.after)]
        assert slowed_s == [0.0, 2.0]
    deployment.require_alive()


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("/no/nvidia-smi",), "gpu_sample could not be started: "),
        (("bash", "-c", "echo gpu g01 nvidia-smi: not found"), "nvidia-smi: not found"),
        (("bash", "-c", "sleep 1000"), "it printed nothing"),
    ],
)
def test_missing_sample_is_said_and_ends_no_attempt(
    argv: tuple[str, ...], reason: str, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_sampling, "LIMIT_S", 0.0 if "sleep 1000" in argv else 60.0)
    deployment = deployed_on_hosts(trial, "gpu_sample", *argv)
    with sampled_gpus(deployment, tmp_path, print):
        pass
    samples = read_gpu_samples(tmp_path)
    assert samples is not None
    assert (samples.before, samples.after) == ({}, {})
    assert reason in samples.missing["g01"]
    assert set(samples.missing) == {"g01", "g02"}
    deployment.require_alive()


def test_probe_that_fails_and_a_plan_without_gpus_leave_no_samples(trial: Trial, tmp_path: Path) -> None:
    deployment = deployed_on_hosts(trial, "gpu_sample", "bash", "-c", COUNTS, str(tmp_path / "count"))
    with pytest.raises(AttemptFailed), sampled_gpus(deployment, tmp_path, print):
        raise AttemptFailed("the load client ended")
    deployment.manifest = deployment.manifest.model_copy(update={"gpu_sample": None})
    with sampled_gpus(deployment, tmp_path, print):
        pass
    assert read_gpu_samples(tmp_path) is None
