"""Build a study's folder beside a replaced Slurm, and the backend that submits to it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from support.composed import composed
from support.fake_slurm import FakeSlurm
from support.slurm_nodes import Nodes
from tune.backends.slurm.allocation import Allocation
from tune.backends.slurm.backend import SlurmBackend
from tune.records.folders import TrialFolder, read_attempt
from tune.spec.trial import TrialSpec

WORDS = ("cluster=slurm", "cluster.partition=rack", "load.min_duration_s=60.0")
SETTINGS = composed(*WORDS, "load.concatenate_permutation=false")
SPEC, FACTS = SETTINGS.trial_spec, SETTINGS.cluster
CALIBRATION = composed().cluster.calibration


@dataclass
class Study:
    """Hold a study's folder beside the replaced Slurm, and a backend that submits to it."""

    root: Path
    slurm: FakeSlurm
    trials_per_job: int = 1
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert CALIBRATION is not None
        self.nodes = Nodes(self.slurm, CALIBRATION)
        self.backend = self.again()

    def again(self, trials_per_job: int | None = None) -> SlurmBackend:
        """Return a backend as the next process of the same study makes it."""
        share = trials_per_job or self.trials_per_job
        self.backend = SlurmBackend(FACTS, share, self.said.append, every_s=0.0, grace_s=0.0, retry_s=0.0)
        return self.backend

    def attempt(self, name: str, spec: TrialSpec = SPEC) -> Path:
        """Return the folder of a new attempt of the trial `name`, as a study prepares it."""
        trial = TrialFolder(self.root / "runs" / "one" / name)
        attempt = trial.new_attempt()
        attempt.mkdir(parents=True)
        trial.write_spec(spec)
        return attempt

    def submit(self, name: str) -> str:
        return self.backend.submit(SPEC, self.attempt(name))

    def allocation(self, number: int = 1) -> Allocation:
        return Allocation(self.root / "runs" / "one" / "jobs" / str(number))


def record_of(handle: str) -> str:
    record = read_attempt(Path(handle))
    assert record is not None
    assert record.cause == "infrastructure"
    return record.error or ""


def in_its_own_process(what: Callable[[], object]) -> int | None:
    """Exit code of a copy of this process that does `what`; negative where a signal ended it."""
    copy = multiprocessing.get_context("fork").Process(target=what)
    copy.start()
    copy.join(30)
    return copy.exitcode
