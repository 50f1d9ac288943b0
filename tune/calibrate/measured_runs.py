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
    """Hold one valid LoadGen run. `recorded` is None where its lengths are not on record."""

    label: str
    spec: TrialSpec
    metrics: MetricValues
    recorded: RecordedRequests | None


def runs_of_study(study: StudyFolder, trials: Sequence[str | int] | None) -> tuple[MeasuredRun, ...]:
    """Return the runs of the trials with these ids or numbers, or of every measured trial for None.

    Runs that are not valid are left out. Raises ConfigurationError for a trial that is missing or was not
    measured, and where no run is left; ResumableError for a damaged record.
    """
    outcomes = study.outcomes()
    if trials is None:
        chosen = [outcome for outcome in outcomes if outcome.status == "measured"]
    else:
        chosen = [_find_outcome(study, outcomes, trial) for trial in trials]
    runs = [run for outcome in chosen for run in _runs_of_trial(study.trial(outcome.trial_id), outcome)]
    if not runs:
        reasons = [probe.reason for outcome in chosen for probe in outcome.probes if not probe.valid]
        invalid = f" (not valid: {reasons[0]})" if reasons else ""
        raise ConfigurationError(
            f"{study.root}: found no valid run in {len(chosen)} of {len(outcomes)} trials{invalid}; expected "
            "at least one. Run the study on, or name another one with calibrate.study=NAME."
        )
    return tuple(runs)


def run_of_logs(folder: Path, spec: TrialSpec) -> MeasuredRun:
    """Return the run of `spec` whose LoadGen logs lie in `folder`.

    Raises ConfigurationError where the logs are of no valid run, have another rate or number of queries than
    `spec`, or no latencies of tokens; ResumableError where there are none.
    """
    log_figures = read_logs(folder)
    _require_valid(folder, log_figures)
    metrics = metrics_of_logs(log_figures)
    _require_fitted(str(folder), metrics)
    _require_same_load(folder, log_figures, spec)
    return MeasuredRun(str(folder), spec, metrics, None)


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
    """Return one run for each valid probe of a trial. Raises ConfigurationError for a missing spec.json."""
    spec = folder.read_spec()
    if spec is None:
        raise ConfigurationError(
            f"{folder.root}: spec.json is missing; expected the configuration of the trial. Restore it, or "
            "leave the trial out with calibrate.trials=[ID,...]."
        )
    runs = []
    for probe in (probe for probe in outcome.probes if probe.valid):
        label = f"trial {outcome.number} ({outcome.trial_id})"
        metrics = metrics_of_probe(probe)
        _require_fitted(label, metrics)
        load = spec.load.model_copy(update={"target_qps": probe.offered_qps})
        recorded = _recorded_requests(folder, probe)
        runs.append(MeasuredRun(label, spec.model_copy(update={"load": load}), metrics, recorded))
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


def _require_valid(folder: Path, log_figures: LoadGenFigures) -> None:
    """Raise ConfigurationError where LoadGen does not call the run a valid one of the Server scenario."""
    if log_figures.mode == "AccuracyOnly":
        found = "an accuracy run, which is not timed"
    elif log_figures.scenario not in (None, "Server"):
        found = f"a run of the scenario {log_figures.scenario}"
    elif log_figures.result == "INVALID":
        found = f"a run that LoadGen calls INVALID ({log_figures.invalid_reason or 'without a reason'})"
    elif log_figures.result is None:
        found = "no verdict of LoadGen: the run was stopped, or its logs are cut short"
    else:
        return
    raise ConfigurationError(
        f"{folder}: found {found}; expected the logs of a VALID performance run of the Server scenario. "
        "Leave this one out."
    )


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
        log_figures.target_qps, load.offered_qps, rel_tol=1e-6
    ):
        raise ConfigurationError(
            f"{folder}: found a run at {log_figures.target_qps:g} queries/s, but the configuration asks for "
            f"{load.offered_qps:g}; expected the configuration that was run. Add "
            f"load.target_qps={log_figures.target_qps:g}, and what else differed."
        )
    queries = len(arrivals_ns(load))
    if log_figures.queries is not None and log_figures.queries != queries:
        raise ConfigurationError(
            f"{folder}: found a run of {log_figures.queries} queries, but the configuration gives {queries}; "
            "expected the same. Set load.min_duration_s, load.min_queries, load.concatenate_permutation and "
            "load.dataset.samples as they were run."
        )
