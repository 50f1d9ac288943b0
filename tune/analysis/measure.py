"""Measure a probe: from the files in its folder to its figures and verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune.analysis.bottleneck import ProbeSummary, find_bottleneck, is_saturated
from tune.analysis.breakdown import breakdown
from tune.analysis.run_checks.table import run_checks
from tune.analysis.shuffles import read_shuffles, shuffle_spread
from tune.analysis.slo import figure_s
from tune.analysis.validity import Invalidity, accuracy_violation, invalid_reason, slo_violation
from tune.analysis.worker_utilisation import scraped_breakdown
from tune.core.files import MOVE_ATTEMPT
from tune.engines.registry import engine_of
from tune.errors import ResumableError
from tune.loadgen.latencies import Latencies, answered, latencies, percentiles_s
from tune.loadgen.log_reader import LoadGenFigures, read_logs
from tune.records.capacity_search import ProbeRequest, read_capacity, read_probe_request
from tune.records.folders import trial_of
from tune.records.outcome import Constraints, Percentiles, Probe
from tune.records.requests import RequestLog, read_requests
from tune.spec.load import Load, Slo
from tune.spec.metrics import LATENCY, RATES, TTFT, LatencyMetric, RunTotals
from tune.spec.split import Role
from tune.spec.trial import TrialSpec

REQUESTS_FILE = "requests.npz"

FULL_LENGTH_S = 600.0
FULL_LENGTH_QUERIES = 100
"""Least duration and queries of a run that the benchmark counts. Source: MLPerf Inference, mlperf.conf."""


def measure(folder: Path, spec: TrialSpec, raw: str, pool_qps: Mapping[Role, float] | None = None) -> Probe:
    """Return the figures and the verdict of one probe.

    Percentiles are those of the answered requests. Output tokens/s is the mean tokens of an answer times the
    rate of completions between warm-up and the last arrival: what the rack did, not what it was offered. Per
    GPU it is over all allocated GPUs. The utilisation of the pools is taken from requests.npz, else from the
    workers' metrics beside it.

    Parameters
    ----------
    folder, raw
        The probe's folder with requests.npz and LoadGen's logs; its name relative to the trial's folder.
    spec
        The configuration; its rate counts where neither probe_request.json nor LoadGen's log states one.
    pool_qps
        Pool capacities in queries/s; None where no capacity search found them.

    Returns
    -------
    Probe
        Rates in requests/s and tokens/s, latencies in seconds, and whether the run is valid and feasible.

    Raises
    ------
    ResumableError
        When requests.npz is missing, torn or empty, LoadGen's verdict on a full run missing, or metrics torn.
    """
    run = _read_run(folder, spec)
    log, good, loadgen, requested = run.log, run.good, run.loadgen, run.requested
    completed_qps = completion_qps(log, run.times, good)
    verdict = _verdict(run, completed_qps)
    measured = {metric: percentiles_s(values_ns) for metric, values_ns in run.times.items()}
    figures: dict[str, Any] = {rate.name: rate.of_run(run.totals(completed_qps)) for rate in RATES}
    figures |= {metric.field: statistics for metric, statistics in measured.items()}
    constraints = _constraints(spec.slo, measured)
    use = breakdown(log, good, spec.decode) or scraped_breakdown(folder, log, spec)
    summary = ProbeSummary(run.target_qps, verdict.saturated_qps, constraints, use, _prefill_frac(measured))
    held = not verdict.broken
    return Probe(
        target_qps=run.target_qps,
        concurrency=spec.load.concurrency,
        queries=len(log),
        valid=verdict.valid,
        feasible=verdict.valid and held,
        **figures,
        constraints=constraints,
        breakdown=use,
        loadgen_result=loadgen.result if loadgen else None,
        reason=verdict.invalid.reason if verdict.invalid else verdict.broken,
        raw=raw,
        full=requested is None or requested.queries is None,
        stopped=bool(requested and requested.stopped),
        may_pass=bool(verdict.invalid and verdict.invalid.may_pass),
        spread=shuffle_spread(measured, held, read_shuffles(folder), spec.slo) if verdict.valid else None,
        bottleneck=find_bottleneck(spec, summary, pool_qps) if verdict.valid else None,
        checks=run_checks(folder, spec, log, raw),
    )


@dataclass(frozen=True, eq=False)
class _Run:
    """Hold one run: its requests, LoadGen's figures, and what asked for it.

    `good` says which requests were answered, `times` has their latencies. `is_full`: the benchmark counts the
    run, and nothing stopped it.
    """

    spec: TrialSpec
    log: RequestLog
    good: NDArray[np.bool_]
    times: Latencies
    loadgen: LoadGenFigures | None
    requested: ProbeRequest | None
    is_full: bool

    @property
    def target_qps(self) -> float | None:
        """Return the offered rate, in queries/s; None in a closed loop."""
        return (self.requested or self.loadgen or self.spec.load).target_qps or self.spec.load.target_qps

    def totals(self, completed_qps: float | None) -> RunTotals:
        """Return what the throughput of the run is computed from."""
        return RunTotals(
            completed_qps=completed_qps,
            answer_tokens=float(self.log.output_tokens[self.good].mean()) if completed_qps else 0.0,
            gpus=self.spec.hardware.gpus,
            loadgen_tps=self.loadgen.tps if self.loadgen and self.is_full else None,
        )


@dataclass(frozen=True)
class _Verdict:
    """Hold why a run is invalid and how it violates the SLO, each None where it does not.

    `saturated_qps` is the rate of completions where the deployment could not follow the offered rate.
    """

    invalid: Invalidity | None
    broken: str | None
    saturated_qps: float | None

    @property
    def valid(self) -> bool:
        """Return whether the measurement can be trusted."""
        return self.invalid is None


def _read_run(folder: Path, spec: TrialSpec) -> _Run:
    """Read the files of a probe.

    Raises ResumableError where its requests are missing, torn or none, or a run of full length lacks
    LoadGen's verdict: no probe ends without that (tune/client/run.py).
    """
    log = read_requests(folder / REQUESTS_FILE)
    if not len(log):
        raise ResumableError(
            f"{folder / REQUESTS_FILE}: has no request; expected those of a probe. {MOVE_ATTEMPT}"
        )
    good, requested = answered(log), read_probe_request(folder)
    is_full = is_full_length(log, spec.load) and not (requested and requested.stopped)
    loadgen = _loadgen(folder)
    if is_full and not spec.load.is_closed_loop and (loadgen is None or loadgen.result is None):
        raise ResumableError(
            f"{folder}: LoadGen's logs hold no verdict; expected VALID or INVALID of a run of full length. "
            f"{MOVE_ATTEMPT}"
        )
    return _Run(spec, log, good, latencies(log, good), loadgen, requested, is_full)


def _verdict(run: _Run, completed_qps: float | None) -> _Verdict:
    """Judge a run by its requests, and one of full length by LoadGen too."""
    log, good, spec, target_qps = run.log, run.good, run.spec, run.target_qps
    if spec.load.trace and len(log) > 1:
        target_qps = (len(log) - 1) * 1e9 / int(log.scheduled_ns[-1])  # a part may be denser than the whole
    broken = slo_violation(log, good, run.times, spec.slo)
    suffers = bool(broken) or not spec.slo.limits
    saturated = suffers and target_qps is not None and is_saturated(target_qps, completed_qps, len(log))
    invalid = invalid_reason(log, good, run.times, target_qps, late=bool(broken))
    if invalid is None and run.is_full and run.loadgen:
        broken = _official(run.loadgen, broken)
        if spec.load.dataset.holds_prompts and engine_of(spec).computes_tokens:
            wrong = accuracy_violation(log, good)
            invalid = Invalidity(wrong, may_pass=False) if wrong else None
    if broken and saturated and completed_qps:
        broken = f"saturated at {completed_qps:.1f} of {target_qps:g} queries/s: {broken}"
    return _Verdict(invalid, broken, completed_qps if saturated else None)


def measure_attempt(attempt: Path, spec: TrialSpec) -> list[Probe]:
    """Return the measured probes in the folder `attempt`, in order.

    Raises ResumableError where there is no probe, where a requests.npz is missing, torn or has no request, or
    where metrics are torn.
    """
    attempt, root = attempt.absolute(), trial_of(attempt).root
    numbered = sorted(attempt.glob("probe-*"), key=lambda path: int(path.name.partition("-")[2]))
    if not numbered:
        raise ResumableError(f"{attempt}: has no folder of a probe; expected at least one. {MOVE_ATTEMPT}")
    search = read_capacity(attempt)
    pools = search.pool_capacity_qps if search else None
    return [measure(probe, spec, str(probe.relative_to(root)), pools) for probe in numbered]


def is_full_length(log: RequestLog, load: Load) -> bool:
    """Return whether the benchmark counts the run.

    It lasts 600 s of arrivals, has 100 queries, and makes whole passes over the dataset.

    Source: MLPerf Inference, mlperf.conf: min_duration, min_query_count, sample_concatenate_permutation.
    """
    n = len(log)
    lasts_s = int(log.scheduled_ns[-1]) / 1e9
    return (
        load.concatenate_permutation
        and n % load.dataset.samples == 0
        and n >= FULL_LENGTH_QUERIES
        and lasts_s >= FULL_LENGTH_S
    )


def completion_qps(log: RequestLog, times: Latencies, good: NDArray[np.bool_]) -> float | None:
    """Return answers completed per second between warm-up and the last arrival.

    The rack starts empty: completions reach the rate of arrivals only as fast as the latency distribution
    fills. Warm-up ends after the 99th percentile of latency, when 1 % of that rate is missing, but never
    later than half of the time to the last arrival. An overloaded rack, whose latencies grow without end,
    works at its capacity long before that.

    Parameters
    ----------
    log
        The requests; at least one.
    times
        Latencies of the answered requests.
    good
        Which requests were answered, shape (n,).

    Returns
    -------
    float or None
        None where no answer ended between warm-up and the last arrival.
    """
    last_ns = int(log.scheduled_ns[-1])
    if not len(times[LATENCY]):
        return None
    warm_ns = min(float(np.quantile(times[LATENCY], 0.99)), last_ns / 2)
    done = log.done_ns[good]
    completed = int(((done > warm_ns) & (done <= last_ns)).sum())
    return completed / ((last_ns - warm_ns) / 1e9) if completed else None


def _loadgen(folder: Path) -> LoadGenFigures | None:
    """Return LoadGen's figures, None for a probe that ended before LoadGen wrote any.

    Raises ResumableError where a log is there and cannot be read.
    """
    try:
        return read_logs(folder)
    except ResumableError as error:
        if isinstance(error.__cause__, OSError):
            raise
        return None


def _official(loadgen: LoadGenFigures, broken: str | None) -> str | None:
    """Return how a run of full length violates the SLO: LoadGen has the last word."""
    if not broken and loadgen.result == "INVALID":
        return f"LoadGen calls the run INVALID: {loadgen.invalid_reason or 'it gives no reason'}"
    return broken


def _constraints(slo: Slo, measured: Mapping[LatencyMetric, Percentiles | None]) -> Constraints:
    """Return ln(figure / limit) of each limit, from the statistics of each latency."""
    logs: dict[str, float | None] = {"ttft_p99": None, "tpot_p99": None}
    for limit, limit_s in slo.limits:
        value_s = figure_s(limit, measured[limit.latency])
        logs[limit.name] = math.log(value_s / limit_s) if value_s is not None and value_s > 0 else None
    return Constraints.model_validate(logs)


def _prefill_frac(measured: Mapping[LatencyMetric, Percentiles | None]) -> float:
    """Return the share of the mean latency that passes before the first token, 0 where not measured."""
    ttft, latency = measured[TTFT], measured[LATENCY]
    return ttft.mean / latency.mean if ttft and latency and latency.mean > 0 else 0.0
