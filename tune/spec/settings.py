"""Hold everything that one command sets: the trial, where it runs, and the study around it."""

from __future__ import annotations

from typing import Literal, get_args

from tune.spec.backend_kinds import BACKEND_DECLARATIONS
from tune.spec.base import FrozenModel, NonNegativeInt
from tune.spec.calibrate_settings import CalibrateSettings
from tune.spec.cluster import ClusterFacts
from tune.spec.confirm_settings import ConfirmSettings
from tune.spec.engine_settings import AggregatedSettings, EngineSettings, WithPools
from tune.spec.export_settings import ExportSettings
from tune.spec.hardware import Hardware
from tune.spec.load import Load, Slo
from tune.spec.model import Model
from tune.spec.space import Search, StudySettings, Sweep
from tune.spec.split import Split
from tune.spec.stack import Stack
from tune.spec.trial import TrialSpec

Action = Literal[
    "run", "plan", "preflight", "bootstrap", "status", "logs", "cancel", "report", "confirm", "compare",
    "parse", "calibrate", "export", "import", "image", "steps",
]  # fmt: skip

ACTION_NAMES: tuple[str, ...] = get_args(Action)


LEARNING_PARALLEL = 3
"""Trials at once of a search that learns from runs at one rate, where the backend runs more. Measured by
benchmarks/search_regret.py: after 60 trials TPE is 6 % below the best of pd_split in batches of 3, 12 % in
batches of 16 (docs/benchmarks.md)."""


class CompareSettings(FrozenModel):
    """Name the two trials that action=compare compares."""

    a: str | None
    b: str | None


class Settings(WithPools):
    """Hold the composed configuration: one field for each key of conf/config.yaml."""

    action: Action
    trial: str | NonNegativeInt | None
    logs: str | None
    recipe: str | None
    to: str | None
    confirm: ConfirmSettings
    compare: CompareSettings
    calibrate: CalibrateSettings
    export: ExportSettings
    rerun: bool
    runs_dir: str
    reports_dir: str
    model: Model
    hardware: Hardware
    split: Split
    stack: Stack
    aggregated: AggregatedSettings
    prefill: EngineSettings
    decode: EngineSettings
    load: Load
    slo: Slo
    cluster: ClusterFacts
    search: Search
    study: StudySettings
    sweep: Sweep | None = None

    @property
    def trial_spec(self) -> TrialSpec:
        """Return the trial as composed; with a sweep the configuration that it varies.

        Raises ConfigurationError for aggregated workers without settings.
        """
        spec = TrialSpec(**{name: getattr(self, name) for name in TrialSpec.model_fields})
        return spec if self.sweep else spec.with_own_pools()

    @property
    def parallel(self) -> int:
        """Return how many trials run at once; null is what suits backend and search.

        A search learns nothing from the trials that run beside its next one, so batches of those that learn
        are small (docs/benchmarks.md).
        """
        most = BACKEND_DECLARATIONS[self.cluster.kind].capabilities.default_parallel
        if self.sweep and self.search.traits.learns:
            one_by_one = self.load.mode == "capacity" or self.search.traits.learns_from_each
            most = min(most, 1 if one_by_one else LEARNING_PARALLEL)
        return self.study.parallel or most
