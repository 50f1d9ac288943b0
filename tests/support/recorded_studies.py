"""Reduce studies on disk to the figures that every later version has to read from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tune.analysis.ranking import rank
from tune.analysis.shuffles import SHUFFLES_FILE, read_shuffles
from tune.backends.slurm.allocation import JOBS, Allocation
from tune.records.accuracy import read_accuracy
from tune.records.attempt_limit import read_limit
from tune.records.capacity_search import read_capacity, read_early_stop, read_probe_request
from tune.records.confirmation import read_confirmation
from tune.records.evidence import read_evidence
from tune.records.folders import StudyFolder, TrialFolder, read_attempt
from tune.records.gpu_samples import read_gpu_samples
from tune.records.held_time import read_free_after
from tune.records.outcome import Outcome
from tune.records.posterior_summary import read_posterior
from tune.records.requests import read_requests
from tune.records.scrapes import METRICS_FILE, read_metrics
from tune.spec.trial import TrialSpec


def figures_of(runs: Path) -> dict[str, Any]:
    """Return the figures of every study in `runs`, by its name. Every reader of records is called."""
    return {path.name: _study(StudyFolder(path)) for path in sorted(runs.iterdir())}


def trial_alone(study: Path) -> tuple[TrialFolder, TrialSpec, Outcome]:
    """Return the folder and the records of the one trial of a study."""
    (folder,) = StudyFolder(study).trials()
    spec, outcome = folder.read_spec(), folder.read_outcome()
    assert spec is not None
    assert outcome is not None
    return folder, spec, outcome


def _study(folder: StudyFolder) -> dict[str, Any]:
    study = folder.read_study()
    assert study is not None
    posterior, confirmation = read_posterior(folder.root), read_confirmation(folder.root)
    ranked = rank(folder.outcomes())
    jobs = sorted((folder.root / JOBS).glob("*"))
    return {
        "backend": study.backend,
        "n_trials": study.n_trials,
        "dimensions": sorted(study.space),
        "proposals": len(folder.read_proposals()),
        "ranked_numbers": [row["number"] for row in ranked],
        "trials": {trial.root.name: _trial(trial) for trial in folder.trials()},
        "posterior_trials": None if posterior is None else len(posterior.trials),
        "posterior_parameters": None if posterior is None else len(posterior.parameters),
        "guaranteed_qps": None
        if confirmation is None
        else [each.guaranteed_qps for each in confirmation.configurations],
    } | _written(jobs=[record.nodes for job in jobs if (record := Allocation(job).read())] or None)


def _trial(folder: TrialFolder) -> dict[str, Any]:
    spec, outcome = folder.read_spec(), folder.read_outcome()
    assert spec is not None
    assert outcome is not None
    return {
        "split": spec.split.label,
        "number": outcome.number,
        "status": outcome.status,
        "feasible": outcome.feasible,
        "target_qps": outcome.target_qps,
        "output_tps_per_gpu": outcome.output_tps_per_gpu,
        "ttft_p99_s": outcome.ttft_s and outcome.ttft_s.p99,
        "gpu_hours": outcome.gpu_hours,
        "attempts": [_attempt(path) for path in folder.attempts()],
    } | _written(draft_tokens=spec.decode.draft_tokens or None)


def _attempt(path: Path) -> dict[str, Any]:
    record = read_attempt(path)
    assert record is not None
    threshold, capacity = read_early_stop(path), read_capacity(path)
    limit, evidence, accuracy = read_limit(path), read_evidence(path), read_accuracy(path)
    return {
        "occupied_s": record.occupied_s,
        "early_stop": threshold is not None,
        "capacity_qps": capacity and capacity.capacity_qps,
        "probes": {probe.name: _probe(probe) for probe in sorted(path.glob("probe-*"))},
    } | _written(
        limit_s=limit and limit.occupied_s,
        free_after_s=read_free_after(path),
        evidence=evidence and {"versions": len(evidence.versions), "hardware": len(evidence.hardware)},
        accuracy=accuracy and {"rouge_l": accuracy.rouge_l, "exact_match": accuracy.exact_match},
    )


def _written(**figures: Any) -> dict[str, Any]:
    """Return the figures of files that are there: versions before 0.2.0 knew none of them."""
    return {name: figure for name, figure in figures.items() if figure is not None}


def _probe(path: Path) -> dict[str, Any]:
    gpus = read_gpu_samples(path)
    log = read_requests(path / "requests.npz") if (path / "requests.npz").exists() else None
    return {
        "requests": None if log is None else len(log),
        "output_tokens": None if log is None else int(log.output_tokens.sum()),
        "requested": read_probe_request(path) is not None,
        "shuffles": len(read_shuffles(path)) if (path / SHUFFLES_FILE).exists() else 0,
        "scraped_workers": sorted({scrape.process for scrape in read_metrics(path / METRICS_FILE)})
        if (path / METRICS_FILE).exists()
        else [],
    } | _written(gpus=gpus and {host: len(samples) for host, samples in gpus.after.items()})
