"""Compose trials of vLLM under Dynamo, as they ran on two H200, and run them without a GPU."""

from __future__ import annotations

from pathlib import Path

from support.composed import changed, composed
from tune.spec.settings import Settings

SEEN = Path(__file__).parents[1] / "data" / "vllm"
_FAKE = Path(__file__).with_name("fake_vllm.py")
_PYTHON = """#!/bin/sh
if [ "$2" = dynamo.vllm ]; then shift 2; exec {real} {fake} "$@"; fi
exec {real} "$@"
"""
_NVIDIA_SMI = """#!/bin/sh
case "$*" in
*clocks_event_reasons*) printf '%s\\n' '0, 700, 700, 0, 0, 0, 12328448' '1, 700, 700, 0, 0, 0, 0' ;;
*--query-gpu*) yes '580.159.04, NVIDIA H200, 143771 MiB, 700.00 W, 1980 MHz, 1980 MHz' | head -n 2 ;;
*) printf '%s\\n' 'GPU 0: H200' 'GPU 1: H200' ;;
esac
"""
TWO_GPUS = (
    *("stack=dynamo_vllm", "cluster=local", "hardware=h200_x2", "split=1p1d", "model=llama3_1_70b_24layers"),
    *("prefill=vllm_one_gpu", "decode=vllm_one_gpu", "load=fixed", "load.mode=fixed"),
    *("load.dataset.inputs.tokens=512", "load.dataset.outputs.tokens=32"),
)


def vllm_settings(*overrides: str) -> Settings:
    """Return the deployment on two GPUs with `overrides`."""
    options = [override for override in overrides if "." not in override.partition("=")[0]]
    changes = [override for override in overrides if override not in options]
    return changed(composed(*TWO_GPUS, *options), *changes)


def install_vllm(folder: Path, dynamo_venv: Path) -> tuple[str, Path]:
    """Install the stand-in for `dynamo.vllm` and a driver that shows two GPUs, below `folder`.

    Returns the override that leads to the stand-in, and the folder of nvidia-smi for the PATH.
    """
    python = _PYTHON.format(real=dynamo_venv / "bin" / "python3", fake=_FAKE)
    engine, driver = folder / "engine", folder / "driver"
    for path, text in ((engine / "bin" / "python3", python), (driver / "nvidia-smi", _NVIDIA_SMI)):
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)
    return f"cluster.dynamo_venv={engine}", driver
