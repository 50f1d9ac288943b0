"""Check that no worker was slower than its peers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tune.analysis.run_checks.run_evidence import Examined, RunEvidence, not_counted
from tune.engines.base import Histogram
from tune.records.scrapes import METRICS_FILE
from tune.spec.split import GENERATES_ANSWERS, Role

MAX_EXCESS_FRAC = 0.15
"""Share by which a worker may be slower than the median of its peers.

In the published run of the reference configuration one of four decode workers explains the distribution of
TPOT if it was 28 % slower under load, 10 to 13 % by itself (docs/simulator.md). Chosen here: half of that.
"""

SIGMAS = 4.0
"""Standard errors that count as noise. One value in 30,000 lies further above its mean, so of 400 runs with
72 workers each, one has a false finding."""

MIN_REQUESTS = 20
"""Fewest requests of a worker from which its speed is compared. Chosen here."""

MAX_BATCHES, MIN_BATCHES = 20, 5
"""Parts of the run from which the noise is estimated, and the fewest that do. Requests that wait in one queue
are late together, so the error of a mean follows from means over parts of the run, not from single requests.
Source: the method of batch means, Law, Simulation Modeling and Analysis, chapter 9."""


@dataclass(frozen=True)
class _Speed:
    """Hold the mean time that a worker took, in seconds, its relative standard error, and its requests."""

    time_s: float
    error_frac: float
    requests: float


def examine_worker_speed(run: RunEvidence) -> Examined:
    """Return the slowest worker of each pool, and how it compares with the median of its peers."""
    wrong: list[str] = []
    compared: list[str] = []
    unknown: list[str] = []
    alone: list[str] = []
    for role in run.spec.split.roles:
        if len(run.workers(role)) < 2:
            alone.append(f"one {role} worker has no peers")
            continue
        speeds, unit = _speeds(run, role)
        if not speeds:
            unknown.append(f"{role} workers are not compared: {unit}")
            continue
        text, slow = _compare(run, speeds, unit)
        (wrong if slow else compared).append(text)
    evidence = (run.file(METRICS_FILE),)
    if wrong:
        return Examined("off", "; ".join(wrong), evidence)
    if unknown or not compared:
        return not_counted("; ".join([*unknown, *compared, *alone]), *evidence)
    return Examined("as_meant", "; ".join([*compared, *alone]), evidence)


def _speeds(run: RunEvidence, role: Role) -> tuple[dict[str, _Speed], str]:
    """Return the speed of each worker of a pool and for what; none and what is missing otherwise."""
    received, metrics = run.engine.signals.requests, run.engine.metrics
    counts = {name: run.grown(name, received.name, received.labels) for name in run.workers(role)}
    known = {name: count for name, count in counts.items() if count is not None}
    if len(known) < len(counts):
        return {}, "they do not count their requests"
    if min(known.values()) < MIN_REQUESTS:
        return {}, f"one had {min(known.values()):.0f} requests, at least {MIN_REQUESTS} are needed"
    measures = [(metrics.request_s, "a request")]
    if role in GENERATES_ANSWERS:
        measures.insert(0, (metrics.token_s, "a token"))
    for histograms, unit in measures:
        speeds = {name: _speed(run, name, histograms, count) for name, count in known.items()}
        found = {name: speed for name, speed in speeds.items() if speed}
        if len(found) == len(known):
            return found, unit
    return {}, "no metric of theirs says often enough how long they took"


def _speed(run: RunEvidence, name: str, histograms: Sequence[Histogram], requests: float) -> _Speed | None:
    """Return the mean of what a worker observed, with its error by batch means; None where not known."""
    observed = np.array(run.observations(name, histograms), float).reshape(-1, 2)
    batches = min(MAX_BATCHES, len(observed) - 1)
    if batches < MIN_BATCHES:
        return None
    ends = np.linspace(0, len(observed) - 1, batches + 1).astype(int)
    sums, counts = np.diff(observed[ends], axis=0).T
    if counts.sum() <= 0 or sums.sum() <= 0:
        return None
    mean_s = float(sums.sum() / counts.sum())
    variance = float(((sums - mean_s * counts) ** 2).sum()) * batches / (batches - 1)
    return _Speed(mean_s, math.sqrt(variance) / float(sums.sum()), requests)


def _compare(run: RunEvidence, speeds: dict[str, _Speed], unit: str) -> tuple[str, bool]:
    """Return the slowest worker beside its peers in words, and whether it is slower than may be."""
    name = max(speeds, key=lambda worker: speeds[worker].time_s)
    slowest = speeds[name]
    peers = [speed for worker, speed in speeds.items() if worker != name]
    median_s = float(np.median([speed.time_s for speed in peers]))
    ratio = slowest.time_s / median_s
    noise = SIGMAS * math.hypot(slowest.error_frac, max(speed.error_frac for speed in peers))
    allowed = 1 + max(MAX_EXCESS_FRAC, noise)
    requests = sum(speed.requests for speed in speeds.values())
    others = "its peer" if len(peers) == 1 else f"the median of its {len(peers)} peers"
    text = (
        f"{run.place(name)} took {_shown(slowest.time_s)} {unit}, {others} {_shown(median_s)}: "
        f"{ratio:.2f} times, up to {allowed:.2f} may be; it had {slowest.requests:,.0f} of {requests:,.0f} "
        "requests"
    )
    return text, ratio > allowed


def _shown(time_s: float) -> str:
    """Return a time with its unit."""
    return f"{time_s:,.3g} s" if time_s >= 1 else f"{time_s * 1e3:,.3g} ms"
