"""Write records of live runs and drafts that every later version has to open, as write_records.py does.

    python tests/compat/write_live_records.py VERSION

Real Slurm, real Dynamo and LoadGen run on this machine, without GPUs: engines and nvidia-smi are stand-ins.
It takes about a minute, and needs what `make slurm` and `make dynamo` install.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from compat.write_records import SHORT, keep, write_study_of_one
from support.accuracy_dataset import write_accuracy_files
from support.accuracy_trials import accuracy_words, measure_accuracy
from support.ports import port_overrides
from support.slurm_rack import slurm_rack
from support.slurm_trials import small, stubbed
from support.vllm_trials import TWO_GPUS, install_vllm

from tune.backends.slurm.allocation import JOBS

VENV = Path(__file__).parents[2] / ".venv-dynamo"
BUDGET = ("study.max_gpu_hours=20",)
MTP = (
    *("study.name=mtp", "+sweep=target_qps", "study.n_trials=2", "load.min_queries=1000", *SHORT),
    "+decode.extra.speculative_config={decoding_type: MTP, num_nextn_predict_layers: 3}",
)


def run(folder: Path, *words: str, **environment: str) -> None:
    """Run `python -m tune` in `folder`; a study in which nothing held its SLO is a record as well."""
    command = [sys.executable, "-m", "tune", *words]
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, check=False)
    assert done.returncode in {0, 1}, done.returncode


def run_vllm(folder: Path) -> None:
    """Run a trial of vLLM on this machine."""
    engine, driver = install_vllm(folder, VENV)
    load = ("load.target_qps=40", "load.min_duration_s=4", "load.min_queries=460", SHORT[-1])
    words = (*TWO_GPUS, *load, *port_overrides(), f"cluster.model_path={VENV / 'model'}", engine)
    run(folder, *words, *BUDGET, "study.name=vllm", PATH=f"{driver}:{os.environ['PATH']}")


def run_slurm(folder: Path) -> Path:
    """Run a trial of stand-ins in a Slurm job; return the folder of the rack that ran it."""
    with slurm_rack() as rack:
        words = (*rack.words, *small(), *stubbed(folder / "stub"), *BUDGET, "study.name=slurm")
        run(folder, *words, **rack.environment)
        return rack.folder


def write_accuracy_study(folder: Path) -> None:
    """Write a study of one trial with an accuracy run, over a dataset with a path of no machine."""
    with chdir(folder):
        files = write_accuracy_files(Path())
        words = accuracy_words(files)
        write_study_of_one(
            Path("runs"),
            "accuracy",
            words,
            lambda attempt, spec: measure_accuracy(attempt, spec, files),
        )


def forget_this_machine(folder: Path, *others: Path) -> None:
    """Delete what submitit keeps of a job, and take the folders of this machine out of every text."""
    for path in folder.glob(f"runs/*/{JOBS}/*/*"):
        if path.suffix != ".json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in folder.glob("runs/**/*"):
        if path.suffix in {".json", ".jsonl", ".txt"}:
            text = path.read_text(encoding="utf-8")
            for own in (folder, *others):
                text = text.replace(str(own), "/srv/tune")
            path.write_text(text, encoding="utf-8")


def main() -> None:
    """Run the studies in a temporary folder, pack them and write their figures."""
    (version,) = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(folder, *MTP)
        run_vllm(folder)
        rack = run_slurm(folder)
        write_accuracy_study(folder)
        forget_this_machine(folder, rack, VENV.parent)
        keep(folder / "runs", version)


if __name__ == "__main__":
    main()
