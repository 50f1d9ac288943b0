"""Count GPUs as a driver shows them; the driver is a program on the PATH."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.vllm_trials import vllm_settings

from tune.backends import local_gpus
from tune.backends.registry import BACKENDS


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is the whole PATH, and hide this machine's driver."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(local_gpus, "_DRIVER_FOLDER", tmp_path / "gpus")
    return tmp_path


def install(folder: Path, *lines: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o755)


def test_gpus_are_counted_by_nvidia_smi(shown: Path) -> None:
    install(shown, "GPU 0: NVIDIA H200 (UUID: GPU-1)", "GPU 1: NVIDIA H200 (UUID: GPU-2)")
    assert local_gpus.gpus_here() == 2
    assert not BACKENDS["local"].preflight(vllm_settings())


def test_gpus_are_counted_in_the_drivers_folder_without_nvidia_smi(shown: Path) -> None:
    for address in ("0000:00:06.0", "0000:00:07.0"):
        (shown / "gpus" / address).mkdir(parents=True)
    assert local_gpus.gpus_here() == 2


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["GPU 0: NVIDIA H200 (UUID: GPU-1)"], "1 NVIDIA GPU on this machine"),
        (["No devices found."], "no NVIDIA GPUs on this machine"),
    ],
)
def test_too_few_are_one_finding(shown: Path, lines: list[str], found: str) -> None:
    install(shown, *lines)
    (finding,) = BACKENDS["local"].preflight(vllm_settings())
    assert (finding.severity, finding.path) == ("error", "hardware.gpus_per_node")
    assert finding.found == found
    assert "at least 2" in finding.expected


def test_mock_engines_need_no_gpu(shown: Path) -> None:
    mocked = vllm_settings("stack=dynamo_v1_mocker", "prefill=chunked", "decode=continuous")
    assert not BACKENDS["local"].preflight(mocked)
