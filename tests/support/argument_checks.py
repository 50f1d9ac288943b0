"""Run the check of a plan's arguments as a node does, with Python packages that stand for an image's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.composed import composed
from support.slurm_trials import small
from tune.deploy.plan import render, write_plan
from tune.manifest.argument_check import ARGUMENT_CHECK_SCRIPT, ArgumentAnswer, read_answer

NESTED, FLAT = (Path(__file__).with_name(f"trtllm_{version}") for version in ("1_3", "1_0"))
"""Folders with stand-ins for TensorRT-LLM of both generations of its YAML."""

WORDS = tuple(word for word in small() if not word.startswith("stack="))


def run_check(
    folder: Path, *words: str, python: str = sys.executable, path: Path | None = None
) -> ArgumentAnswer:
    """Return what `python`, with the packages in `path`, says of the plan of `words`, written to `folder`."""
    settings = composed("cluster=slurm", *WORDS, *words)
    write_plan(render(settings.trial_spec, settings.cluster), folder)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    log = folder / "log"
    with log.open("wb") as file:
        subprocess.run(
            [python, folder / ARGUMENT_CHECK_SCRIPT], check=True, env=environment, stdout=file, stderr=file
        )
    answer = read_answer(log)
    assert answer is not None, log.read_text()
    return answer
