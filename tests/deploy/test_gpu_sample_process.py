"""Test the command that samples GPUs in bash, with a stand-in for nvidia-smi that prints as the real one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.composed import composed

from tune.deploy.plan import render
from tune.manifest.process_manifest import MANIFEST_FILE, ProcessManifest
from tune.records.gpu_samples import parse_gpu_lines

PRINTED = "0, 700.00, 700.00, 0, 0, 0, 12328448\n1, 700.00, 650.00, 0, 0, 0, 0\n"


def manifest(*overrides: str) -> ProcessManifest:
    settings = composed("cluster=slurm", *overrides)
    plan = render(settings.trial_spec, settings.cluster)
    return ProcessManifest.model_validate_json(plan.files[MANIFEST_FILE])


@pytest.mark.parametrize(
    ("nvidia_smi", "found"),
    [
        (f"printf '{PRINTED}'", 2),
        ("echo 'Field \"clocks\" is not a valid field to query.'; echo; exit 2", None),
        (None, None),
    ],
)
def test_command_prints_what_the_record_reads(
    nvidia_smi: str | None, found: int | None, tmp_path: Path
) -> None:
    if nvidia_smi is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{nvidia_smi}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    process = manifest().gpu_sample
    assert process is not None
    assert (len(process.nodes), process.tasks) == (18, 18)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURMD_NODENAME": "gb01"}
    done = subprocess.run(process.argv, env=environment, capture_output=True, text=True, check=True)
    samples, missing = parse_gpu_lines(done.stdout, ("gb01", "gb02"))
    assert "gb02" in missing
    if found is None:
        assert "not " in missing["gb01"]
    else:
        assert len(samples["gb01"]) == found


def test_mock_engines_have_no_gpus_to_sample() -> None:
    assert manifest("stack=dynamo_v1_mocker").gpu_sample is None
