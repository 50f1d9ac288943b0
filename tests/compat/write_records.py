"""Write the records that every later version has to open: small studies of each kind, packed.

    python tests/compat/write_records.py VERSION

VERSION.tar.xz beside this file gets the studies, VERSION.json the figures that readers find in them
(tests/support/recorded_studies.py).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.composed import composed
from support.recorded_studies import figures_of

from tune.analysis.judge import TrialFacts, judge
from tune.analysis.measure import measure_attempt
from tune.config import trial_overrides
from tune.records.accuracy import read_accuracy
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import PROBE_FOLDER, write_attempt
from tune.records.outcome import Attempt
from tune.records.proposals import Proposal
from tune.spec.trial import TrialSpec
from tune.study.identity import study_record
from tune.study.loop import open_study

HERE = Path(__file__).parent
SHORT = ("load.dataset.samples=1000", "load.min_duration_s=30.0", "load.concatenate_permutation=false")
COMMANDS = (
    (
        "+sweep=pd_split",
        "study.name=fixed",
        "search=tpe",
        "study.n_trials=5",
        "load.min_queries=1000",
        *SHORT,
    ),
    ("action=confirm", "study.name=fixed", "confirm.configurations=1", "confirm.repeats=2"),
    (
        *("+sweep=pd_split", "study.name=capacity", "load.mode=capacity", "search=surrogate"),
        *("study.n_trials=4", "load.min_queries=1000", *SHORT),
    ),
    ("+sweep=disaggregation", "study.name=aggregated", "study.n_trials=4", "load.min_queries=1000", *SHORT),
    (
        *("+sweep=concurrency", "study.name=closed", "study.n_trials=3", "load.min_queries=500"),
        *("load.dataset.samples=1000", "load.concatenate_permutation=false"),
    ),
)
LIVE = HERE.parent / "data" / "live" / "2P1D"
LIVE_TRIAL = (
    *("cluster=local", "stack=dynamo_v1_mocker", "hardware.nodes=3", "split.prefill_workers=2"),
    *("split.decode_workers=1", "load.target_qps=2.0", "load.concatenate_permutation=false"),
    *("load.min_duration_s=30.0", "load.min_queries=50", "load.dataset.outputs.mean_tokens=250.0"),
    "load.dataset.outputs.cap_frac=0.0",
)
BEGAN, ENDED = "2026-11-23T10:00:00+00:00", "2026-11-23T10:01:30+00:00"


def write_live_study(runs: Path) -> None:
    """Write a study of one trial around the live attempt in tests/data/live."""
    write_study_of_one(runs, "live", LIVE_TRIAL, lambda attempt, _: copytree(LIVE, attempt / PROBE_FOLDER))


def write_study_of_one(
    runs: Path, name: str, words: tuple[str, ...], fill: Callable[[Path, TrialSpec], object]
) -> None:
    """Write the study `name` of the one trial of `words`, whose attempt `fill` fills with measurements."""
    settings = composed(*words)
    spec = settings.trial_spec
    with open_study(runs / name, study_record(settings, name, words)) as folder:
        folder.append_proposal(Proposal(number=0, params={}, source="baseline", trial_id=spec.trial_id))
        trial = folder.trial(spec.trial_id)
        trial.write_spec(spec)
        attempt = trial.new_attempt()
        fill(attempt, spec)
        write_attempt(attempt, AttemptRecord(started_at=BEGAN, ended_at=ENDED, occupied_s=90.0))
        gpu_hours = spec.hardware.gpus * 90.0 / 3600
        record = Attempt(started_at=BEGAN, ended_at=ENDED, gpu_hours=gpu_hours, class_="measured")
        provenance = {"params": {}, "overrides": list(trial_overrides(spec, settings))}
        facts = TrialFacts(0, "baseline", (record,), provenance)
        trial.write_outcome(
            judge(spec, measure_attempt(attempt, spec), facts, accuracy=read_accuracy(attempt))
        )


def prune(runs: Path) -> None:
    """Delete what is large and no record: plans, LoadGen's details, requests of all but one trial a study."""
    for study in runs.iterdir():
        for number, trial in enumerate(sorted(path.parent for path in study.glob("*/spec.json"))):
            for folder in (trial / "plan", *trial.glob("raw/*/logs")):
                shutil.rmtree(folder, ignore_errors=True)
            large = ["mlperf_log_detail.txt", *(["requests.npz"] if number else [])]
            for path in (path for name in large for path in trial.glob(f"raw/*/*/{name}")):
                path.unlink()


def pack(runs: Path, path: Path) -> None:
    """Pack the studies without times, owners and locks of this machine."""

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
        return None if member.name.endswith(".lock") else member

    with tarfile.open(path, "w:xz") as tar:
        for study in sorted(runs.iterdir()):
            tar.add(study, arcname=study.name, filter=anonymous)


def keep(runs: Path, version: str) -> None:
    """Write the two files of a version beside this one."""
    prune(runs)
    pack(runs, HERE / f"{version}.tar.xz")
    text = json.dumps(figures_of(runs), indent=1, sort_keys=True) + "\n"
    (HERE / f"{version}.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Run the studies in a temporary folder, pack them and write their figures."""
    (version,) = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        for words in COMMANDS:
            subprocess.run([sys.executable, "-m", "tune", *words], cwd=folder, check=True)
        runs = Path(folder, "runs")
        write_live_study(runs)
        keep(runs, version)


if __name__ == "__main__":
    main()
