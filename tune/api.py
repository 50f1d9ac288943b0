"""Read studies and simulate trials from Python: the supported interface for notebooks.

The functions and classes here are also attributes of the package: `import tune; tune.load_study("runs/X")`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tune.config import compose_overrides, trial_overrides
from tune.errors import ConfigurationError
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.posterior_summary import PosteriorSummary, read_posterior
from tune.records.study_record import StudyRecord
from tune.spec.cluster import Calibration
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Trial:
    """Hold one trial on record: its configuration and its outcome.

    Attributes
    ----------
    spec : TrialSpec
        The complete configuration.
    outcome : Outcome
        What was measured, with status, verdict, latencies, probes and costs.
    folder : Path
        The trial's folder, with its plan and its raw records.
    """

    spec: TrialSpec
    outcome: Outcome
    folder: Path

    @property
    def number(self) -> int:
        """Return the number of the trial in its study, from 0 on."""
        return self.outcome.number

    @property
    def trial_id(self) -> str:
        """Return the id of the configuration, which also names the trial's folder."""
        return self.outcome.trial_id

    @property
    def params(self) -> Mapping[str, Any]:
        """Return the values of the sweep's dimensions; empty for a single trial."""
        params: Mapping[str, Any] = self.outcome.provenance.get("params", {})
        return params

    @property
    def overrides(self) -> tuple[str, ...]:
        """Return the command-line overrides that measure the trial again."""
        return tuple(self.outcome.provenance.get("overrides", ()))


@dataclass(frozen=True)
class Study:
    """Hold a study on disk; every method reads the records anew, so a running study can be watched.

    Attributes
    ----------
    folder : Path
        The study's folder, `runs_dir/NAME`.
    record : StudyRecord
        The question, space, search and versions, from `study.json`.
    """

    folder: Path
    record: StudyRecord

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Return every trial that has an outcome, by number. Raises ResumableError for a damaged file."""
        records = StudyFolder(self.folder)
        found = [(records.trial(outcome.trial_id), outcome) for outcome in records.outcomes()]
        specs = [(trial, outcome, trial.read_spec()) for trial, outcome in found]
        return tuple(Trial(spec, outcome, trial.root) for trial, outcome, spec in specs if spec)

    def frame(self) -> pd.DataFrame:
        """Return a table with one row per outcome, by number.

        Returns
        -------
        pandas.DataFrame
            Status, tokens/s per GPU, latencies in seconds, pool figures, costs in GPU-hours, and one column
            `param.NAME` per dimension of the sweep. Missing numbers are NaN.
        """
        from tune.analysis.ranking import outcome_frame

        return outcome_frame(StudyFolder(self.folder).outcomes())

    def best(self) -> Trial | None:
        """Return the feasible trial that the ranking puts first; None where no trial is feasible."""
        from tune.analysis.ranking import rank

        trials = {trial.trial_id: trial for trial in self.trials}
        rows = rank([trial.outcome for trial in trials.values()], self.posterior())
        return trials[rows[0]["trial_id"]] if rows and rows[0]["feasible"] else None

    def posterior(self) -> PosteriorSummary | None:
        """Return the surrogate's posterior of the rack; None where the search has no surrogate."""
        return read_posterior(self.folder)


def load_study(path: str | Path) -> Study:
    """Open a study that `tune` recorded.

    Parameters
    ----------
    path : str or Path
        The study's folder, such as `runs/pd_split-sim`.

    Returns
    -------
    Study
        The study; its trials are read when they are requested.

    Raises
    ------
    ConfigurationError
        If the folder holds no study.
    ResumableError
        If `study.json` is damaged.
    """
    folder = Path(path)
    record = StudyFolder(folder).read_study()
    if record is None:
        raise ConfigurationError(
            f"{folder}: no study there; expected a folder with study.json, such as runs/pd_split-sim."
        )
    return Study(folder, record)


def compose(overrides: Sequence[str] = (), config_dirs: Sequence[str | Path] = ()) -> Settings:
    """Compose the configuration that a command line with these overrides has.

    Parameters
    ----------
    overrides : sequence of str
        Overrides as on the command line: `split.prefill_workers=13`, `slo=server`, `+sweep=pd_split`.
    config_dirs : sequence of str or Path
        Folders with further options, as `--config-dir` names them.

    Returns
    -------
    Settings
        The typed configuration; `Settings.trial_spec` is its trial.

    Raises
    ------
    ConfigurationError
        If an override names no setting or a value is not valid.
    """
    return compose_overrides(list(overrides), [str(folder) for folder in config_dirs]).settings


def simulate(spec: TrialSpec, calibration: Calibration | None = None) -> Outcome:
    """Run one trial on the simulated rack, as `python -m tune` with `cluster=sim` does.

    Parameters
    ----------
    spec : TrialSpec
        The trial, such as `compose(["load.target_qps=14"]).trial_spec`.
    calibration : Calibration, optional
        Parameters of the simulated rack; those of conf/cluster/sim.yaml where none are given.

    Returns
    -------
    Outcome
        The outcome; its status is "infeasible" where a rule is broken. Raw records are not kept.
    """
    from tune.backends.simulated import SimulatorBackend
    from tune.study.identity import study_record
    from tune.study.loop import open_study, run_trial

    shipped = compose()
    simulated = calibration or shipped.cluster.calibration
    assert simulated is not None, "cluster=sim has a calibration"
    cluster = shipped.cluster.model_copy(update={"calibration": simulated})
    trial = {name: getattr(spec, name) for name in TrialSpec.model_fields}
    settings = shipped.model_copy(update={**trial, "cluster": cluster})
    with TemporaryDirectory(prefix="tune-simulate-") as scratch:
        record = study_record(settings, "simulate", ())
        with open_study(Path(scratch), record) as folder, SimulatorBackend(simulated, 0) as backend:
            outcome, _ = run_trial(folder, settings, backend, partial(trial_overrides, settings=settings))
    return outcome
