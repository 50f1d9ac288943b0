"""Everything one command says, typed: the trial, where it runs, and the study around it."""

from __future__ import annotations

from typing import Literal

from tune.spec.base import FrozenModel, NonNegativeInt
from tune.spec.calibrate_settings import CalibrateSettings
from tune.spec.cluster import ClusterFacts
from tune.spec.confirm_settings import ConfirmSettings
from tune.spec.engine_settings import EngineSettings
from tune.spec.hardware import Hardware
from tune.spec.load import Load, Slo
from tune.spec.model import Model
from tune.spec.space import Search, StudySettings, Sweep
from tune.spec.split import Split
from tune.spec.stack import Stack
from tune.spec.trial import TrialSpec

Action = Literal[
    "run", "plan", "preflight", "status", "logs", "cancel", "report", "confirm", "compare", "parse",
    "calibrate",
]  # fmt: skip

_PARALLEL = {"sim": 16, "local": 1, "slurm": 1}
"""Trials at once where none are asked for: cores are cheap, a rack is not."""


class CompareSettings(FrozenModel):
    a: str | None
    b: str | None


class Settings(FrozenModel):
    """The composed configuration; one field a key of conf/config.yaml."""

    action: Action
    trial: str | NonNegativeInt | None
    logs: str | None
    confirm: ConfirmSettings
    compare: CompareSettings
    calibrate: CalibrateSettings
    rerun: bool
    runs_dir: str
    reports_dir: str
    model: Model
    hardware: Hardware
    split: Split
    prefill: EngineSettings
    decode: EngineSettings
    load: Load
    slo: Slo
    stack: Stack
    cluster: ClusterFacts
    search: Search
    study: StudySettings
    sweep: Sweep | None = None

    @property
    def trial_spec(self) -> TrialSpec:
        """The trial as composed: the configuration before a sweep's point is bound."""
        return TrialSpec(**{name: getattr(self, name) for name in TrialSpec.model_fields})

    @property
    def parallel(self) -> int:
        """How many trials run at once: what is asked for, or what suits the place."""
        return self.study.parallel or _PARALLEL[self.cluster.kind]
