"""Read measured runs, their requests and metrics, from a study or from LoadGen's logs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tune.analysis.measure import REQUESTS_FILE
from tune.calibrate.compared_metrics import FITTED_METRICS, MetricValues, metrics_of_logs, metrics_of_probe
from tune.core.arrays import IntArray
from tune.errors import ConfigurationError
from tune.loadgen.log_reader import LoadGenFigures, read_logs
from tune.records.folders import StudyFolder, TrialFolder
from tune.records.outcome import Outcome, Probe
from tune.records.requests import read_requests
from tune.spec.trial import TrialSpec
from tune.workload.arrivals import arrivals_ns


@dataclass(frozen=True, eq=False)
class RecordedRequests:
    """Hold the requests of a run in order of arrival: int64 arrays of shape (n,)."""

    scheduled_ns: IntArray
    input_tokens: IntArray
    output_tokens: IntArray


@dataclass(frozen=True, eq=False)
class MeasuredRun:
    """Hold one LoadGen run. `recorded` is None where its lengths are not on record.

    `invalid_reason` says why its record calls it invalid, None for a valid run.
    """

    label: str
    spec: TrialSpec
    metrics: MetricValues
    recorded: RecordedRequests | None
    invalid_reason: str | None = None


def runs_of_study(study: StudyFolder, trials: Sequence[str | int] | None) -> tuple[MeasuredRun, ...]:
    """Return the runs of the trials with these ids or numbers, or of every measured trial for None.

    Raises ConfigurationError for a trial that is missing or was not measured, and where none is left;
    ResumableError for a damaged record.
    """
    outcomes = study.outcomes()
    if trials is None:
        chosen = [outcome for outcome in outcomes if outcome.status == "measured"]
    else:
        chosen = [_find_outcome(study, outcomes, trial) for trial in trials]
    runs = [run for outcome in chosen for run in _runs_of_trial(study.trial(outcome.trial_id), outcome)]
    if not runs:
        raise ConfigurationError(
            f"{study.root}: found no measured trial among {len(outcomes)}; expected at least one. Run the "
            "study on, or name another one with calibrate.study=NAME."
        )
    return tuple(runs)


def run_of_logs(folder: Path, spec: TrialSpec) -> MeasuredRun:
    """Return the run of `spec` whose LoadGen logs lie in `folder`.

    Raises ConfigurationError where the logs have another rate or number of queries than `spec`, or no
    latencies of tokens; ResumableError where there are none.
    """
    log_figures = read_logs(folder)
    metrics = metrics_of_logs(log_figures)
    _require_fitted(str(folder), metrics)
    _require_same_load(folder, log_figures, spec)
    return MeasuredRun(str(folder), spec, metrics, None, log_figures.invalid_reason)


def _find_outcome(study: StudyFolder, outcomes: Sequence[Outcome], trial: str | int) -> Outcome:
    """Return the measured outcome with the id or the number `trial`. Raises ConfigurationError."""
    by_number = {proposal.number: proposal.trial_id for proposal in study.read_proposals()}
    by_number |= {outcome.number: outcome.trial_id for outcome in outcomes}
    trial_id = by_number.get(trial) if isinstance(trial, int) else trial
    outcome = next((outcome for outcome in outcomes if outcome.trial_id == trial_id), None)
    if outcome is None:
        raise ConfigurationError(
            f"calibrate.trials: found {trial}, which has no outcome in {study.root}; expected the number or "
            f"the trial_id of one of its {len(outcomes)} trials, as the report and ranking.json list them."
        )
    if outcome.status != "measured":
        raise ConfigurationError(
            f"calibrate.trials: {trial} is {outcome.status} ({outcome.reason}); expected a measured trial. "
            "Leave it out."
        )
    return outcome


def _runs_of_trial(folder: TrialFolder, outcome: Outcome) -> list[MeasuredRun]:
    """Return one run for each probe of a trial. Raises ConfigurationError for a missing spec.json."""
    spec = folder.read_spec()
    if spec is None:
        raise ConfigurationError(
            f"{folder.root}: spec.json is missing; expected the configuration of the trial. Restore it, or "
            "leave the trial out with calibrate.trials=[ID,...]."
        )
    runs = []
    for probe in outcome.probes:
        label = f"trial {outcome.number} ({outcome.trial_id})"
        metrics = metrics_of_probe(probe)
        _require_fitted(label, metrics)
        load = spec.load.model_copy(update={"target_qps": probe.target_qps})
        recorded = _recorded_requests(folder, probe)
        invalid_reason = None if probe.valid else probe.reason
        runs.append(
            MeasuredRun(label, spec.model_copy(update={"load": load}), metrics, recorded, invalid_reason)
        )
    return runs


def _recorded_requests(folder: TrialFolder, probe: Probe) -> RecordedRequests | None:
    """Return the requests in the probe's requests.npz; None where the file or the lengths are missing."""
    path = folder.root / probe.raw / REQUESTS_FILE
    if not path.exists():
        return None
    log = read_requests(path)
    if (log.input_tokens < 1).any():
        return None
    return RecordedRequests(log.scheduled_ns, log.input_tokens, np.maximum(log.output_tokens, 1))


def _require_fitted(label: str, metrics: MetricValues) -> None:
    """Raise ConfigurationError where a metric is missing that decides the fit."""
    missing = [
        f"{name} of {quantity}" for quantity, name in FITTED_METRICS if (quantity, name) not in metrics
    ]
    if missing:
        raise ConfigurationError(
            f"{label}: found no {', '.join(missing)}; expected the latencies of tokens, which a calibration "
            "is fitted to (LoadGen writes them with use_token_latencies). Leave the run out."
        )


def _require_same_load(folder: Path, log_figures: LoadGenFigures, spec: TrialSpec) -> None:
    """Raise ConfigurationError where the logs are not those of a run of `spec`."""
    load = spec.load
    if log_figures.target_qps is not None and not math.isclose(
        log_figures.target_qps, load.target_qps, rel_tol=1e-6
    ):
        raise ConfigurationError(
            f"{folder}: found a run at {log_figures.target_qps:g} queries/s, but the configuration asks for "
            f"{load.target_qps:g}; expected the configuration that was run. Add "
            f"load.target_qps={log_figures.target_qps:g}, and what else differed."
        )
    queries = len(arrivals_ns(load))
    if log_figures.queries is not None and log_figures.queries != queries:
        raise ConfigurationError(
            f"{folder}: found a run of {log_figures.queries} queries, but the configuration gives {queries}; "
            "expected the same. Set load.min_duration_s, load.min_queries, load.concatenate_permutation and "
            "load.dataset.samples as they were run."
        )
