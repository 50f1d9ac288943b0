"""Test what a node reports of itself; nvidia-smi is a stand-in that prints as the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tune.deploy import collect_evidence
from tune.deploy.collect_evidence import nccl_text

GPU = "580.159.04, NVIDIA H200, 143771 MiB, 700.00 W, 1980 MHz, 1980 MHz"
"""What nvidia-smi 580.159.04 said of an H200."""


def report(folder: Path, nvidia_smi: str | None, *packages: str, **variables: str) -> dict[str, Any]:
    """Return what the script prints where `nvidia_smi` is a shell script, or nothing of that name."""
    if nvidia_smi is not None:
        program = folder / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{nvidia_smi}\n")
        program.chmod(0o755)
    environment = {"PATH": str(folder), "SLURMD_NODENAME": "gb01", **variables}
    script = (sys.executable, collect_evidence.__file__, *packages)
    done = subprocess.run(script, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)["evidence"]
    return found


def test_a_node_reports_gpus_versions_and_what_it_does_not_know(tmp_path: Path) -> None:
    found = report(
        tmp_path, "\n".join([f"echo '{GPU.replace(', 1980 MHz', ', [N/A]')}'"] * 4), "pytest", "tensorrt_llm"
    )
    assert found["host"] == "gb01"
    assert found["versions"]["pytest"] == pytest.__version__
    assert found["versions"]["GPU driver"] == "580.159.04"
    assert found["hardware"]["GPUs"] == "4 x NVIDIA H200"
    assert found["hardware"]["GPU power limit"] == "700.00 W"
    assert found["hardware"]["architecture"] == os.uname().machine
    assert found["missing"]["tensorrt_llm"] == f"not installed for {sys.executable}"
    assert found["missing"]["SM clock of applications"] == "nvidia-smi: [N/A]"


def test_variables_that_choose_the_way_of_kv_caches_are_reported_and_no_others(tmp_path: Path) -> None:
    chosen = {"UCX_TLS": "rc,cuda_copy", "TRTLLM_USE_UCX_KVCACHE": "1", "MC_FORCE_MNNVL": "1"}
    others = {"HF_TOKEN": "x", "LANG": "C", "MC_HOST_store": "https://x:y@store", "NIXL_ACCESS_KEY": "x"}
    assert report(tmp_path, None, **chosen, **others)["transport"] == chosen
    assert report(tmp_path, None)["transport"] == {}


def test_gpus_that_differ_are_all_named(tmp_path: Path) -> None:
    other = GPU.replace("700.00 W", "600.00 W").replace("H200", "H100")
    found = report(tmp_path, f"echo '{GPU}'; echo '{GPU}'; echo '{other}'")
    assert found["hardware"]["GPUs"] == "2 x NVIDIA H200, 1 x NVIDIA H100"
    assert found["hardware"]["GPU power limit"] == "700.00 W, 600.00 W"


@pytest.mark.parametrize(
    ("nvidia_smi", "reason"),
    [
        (None, "No such file or directory: 'nvidia-smi'"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "nvidia-smi: NVIDIA-SMI has failed"),
        ("echo No devices were found", "nvidia-smi: No devices were found"),
    ],
)
def test_node_without_gpus_says_so(nvidia_smi: str | None, reason: str, tmp_path: Path) -> None:
    found = report(tmp_path, nvidia_smi)
    assert reason in found["missing"]["GPUs"]
    assert "GPUs" not in found["hardware"]
    assert "GPU driver" not in found["versions"]


def test_library_of_python_packages_goes_before_that_of_the_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch and NIXL load the libraries of their own packages."""
    for path in ("nvidia/nccl/lib/libnccl.so.2", "nixl_cu13.libs/libucp-7df0.so.0.0.0"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"")
    monkeypatch.setattr(sys, "path", ["", "/nowhere", str(tmp_path)])
    opened = []
    monkeypatch.setattr(
        "ctypes.CDLL", lambda path: opened.append(path) or (_ for _ in ()).throw(OSError("x"))
    )
    missing: dict[str, str] = {}
    assert not list(collect_evidence.library_versions(missing))
    bundled = (tmp_path / "nvidia/nccl/lib/libnccl.so.2", tmp_path / "nixl_cu13.libs/libucp-7df0.so.0.0.0")
    assert opened == [str(bundled[0]), "libucp.so.0", str(bundled[1])]
    assert missing == {"NCCL": "x", "UCX": "x", "UCX of NIXL": "x"}


def test_nccl_states_its_version_as_one_number() -> None:
    """The first is what libnccl.so.2 of nvidia-nccl-cu12 2.32.3 states."""
    assert [nccl_text(number) for number in (23203, 22907)] == ["2.32.3", "2.29.7"]
