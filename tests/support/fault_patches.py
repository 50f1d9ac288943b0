"""Bring mended faults of tune back, each by replacing lines in a copy of its tree.

Each patch undoes one mend. `tests/slurm/test_fault_patches.py` runs the cell of the fault matrix that has to
name it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from support.fault_cell import Stage

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Patch:
    """Describe a fault that comes back.

    Attributes
    ----------
    name
        What goes wrong then.
    edits
        File below tune/, the text that stands in it once, and what replaces it.
    fault, stage
        The cell that has to fail.
    says
        Pattern of the words with which it fails.
    """

    name: str
    edits: tuple[tuple[str, str, str], ...]
    fault: str
    stage: Stage
    says: str

    def apply(self, folder: Path) -> Path:
        """Make a copy of the tree in `folder`, with the fault in it; return it."""
        for part in ("tune", "conf", "sweeps"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file, old, new in self.edits:
            path = folder / "tune" / file
            text = path.read_text(encoding="utf-8")
            assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times, expected once"
            path.write_text(text.replace(old, new), encoding="utf-8")
        return folder


PATCHES = (
    Patch(
        "a load client that hangs is waited for until the time limit of the job",
        (
            (
                "orchestrator/probes.py",
                "ProgressDeadline(deployment.manifest.deadlines.quiet_s, math.inf)",
                "ProgressDeadline(math.inf, math.inf)",
            ),
        ),
        "client hung",
        "probing",
        "did not end within",
    ),
    Patch(
        "a load client that a signal ended stops the study",
        (("orchestrator/probes.py", '"infrastructure" if is_signal(code) else "harness"', '"harness"'),),
        "client killed",
        "probing",
        "measured after 2 commands, expected 1",
    ),
    Patch(
        "the GPU-hours of a failed attempt are lost",
        (
            (
                "study/trial_runner.py",
                "records = [read_attempt(path) for path in folder.attempts()]",
                "records = [read_attempt(attempt)]",
            ),
        ),
        "worker killed",
        "probing",
        r"causes \[None\]",
    ),
    Patch(
        "the GPU-hours of an attempt whose orchestrator was killed are lost",
        (
            (
                "backends/slurm/lost_jobs.py",
                "occupied_s = max(0.0, (info.occupied_s or 0.0) - others_s)",
                "occupied_s = 0.0 * others_s",
            ),
        ),
        "orchestrator killed",
        "probing",
        "held its nodes",
    ),
    Patch(
        "a job that ended while no driver ran is run again",
        (
            (
                "study/trial_runner.py",
                "outcome = self._uncollected(request) or (None if rerun else folder.read_outcome())",
                "outcome = None if rerun else folder.read_outcome()",
            ),
        ),
        "driver killed",
        "recording",
        r"causes \[None, None\]",
    ),
    Patch(
        "a job that still runs is not taken up again by the next driver",
        (("study/trial_runner.py", "handle = self._backend.resume(last)", "handle = None"),),
        "driver killed",
        "probing",
        r"are on record|causes \[None, None\]",
    ),
    Patch(
        "a job whose id sbatch did not tell is submitted once more",
        (
            (
                "backends/slurm/backend.py",
                "self._monitor.commented(allocation.comment) or allocation.traces()",
                "None",
            ),
        ),
        "sbatch: answer lost",
        "submitting",
        "are on record",
    ),
    Patch(
        "a controller that is busy ends the study",
        (
            (
                "backends/slurm/submission.py",
                "    if _BUSY.search(message):\n        return RetryableRejection(later, None)\n",
                "",
            ),
        ),
        "sbatch: controller busy",
        "submitting",
        "measured after 2 commands, expected 1",
    ),
    Patch(
        "preemption is read as a job that somebody cancelled",
        (
            (
                "orchestrator/slurm/job.py",
                '    if preempted_at != "None":\n        return f"preempted at {preempted_at}"\n',
                "",
            ),
        ),
        "preempted",
        "probing",
        "measured after 2 commands, expected 1",
    ),
    Patch(
        "the node that ended a job is not on record",
        (("orchestrator/slurm/job.py", 'fields[1].startswith("down")', "False"),),
        "node lost",
        "starting",
        "the node that was lost is on record",
    ),
    Patch(
        "a record is torn where the disk is full",
        (
            ("core/files.py", 'path.with_name(f"{path.name}.{os.getpid()}.tmp")', "path"),
            (
                "core/files.py",
                '        temporary.unlink(missing_ok=True)\n        with temporary.open("xb")',
                '        with temporary.open("wb")',
            ),
            ("core/files.py", "        temporary.replace(path)\n", ""),
            (
                "core/files.py",
                "        with suppress(OSError):  # renamed, or never made\n            temporary.unlink()",
                "        pass",
            ),
        ),
        "disk full",
        "recording",
        "not measured after",
    ),
    Patch(
        "a second driver runs the study too",
        (("core/locks.py", "        if not locked:\n            raise ConfigurationError(in_use)\n", ""),),
        "second driver",
        "probing",
        "a second driver is refused",
    ),
)
