"""Read what a probe of a live deployment left behind, for the checks of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tune.engines.base import EngineAdapter, Histogram
from tune.engines.registry import engine_of
from tune.errors import ResumableError
from tune.manifest.process import Process
from tune.manifest.process_manifest import read_manifest
from tune.records.evidence import Evidence, read_evidence
from tune.records.folders import trial_of
from tune.records.gpu_samples import GpuSamples, read_gpu_samples
from tune.records.requests import RequestLog
from tune.records.run_check import CheckResult
from tune.records.scrapes import METRICS_FILE, Scrape, read_metrics, total
from tune.spec.trial import TrialSpec

SERVERS = ("frontend", "prefill", "decode")
"""Roles of the processes that hold requests."""


@dataclass(frozen=True)
class Examined:
    """Hold the result of one check, what it found in words, and the files that show it."""

    result: CheckResult
    found: str
    evidence: tuple[str, ...] = ()


def not_counted(why: str, *evidence: str) -> Examined:
    """Return that nothing is known, and why."""
    return Examined("not_counted", why, evidence)


@dataclass(frozen=True, eq=False)
class RunEvidence:
    """Hold what one probe left behind.

    `attempt` is the attempt's folder, `raw` the probe's, relative to the trial's. `scrapes` are empty without
    metrics, `servers` the frontends and workers of the plan by name, empty where no plan can be read. `nodes`
    and `gpus` are None where nothing was recorded.
    """

    attempt: Path
    raw: str
    spec: TrialSpec
    log: RequestLog
    began_at_s: float
    scrapes: Sequence[Scrape]
    servers: Mapping[str, Process]
    nodes: Evidence | None
    gpus: GpuSamples | None

    @property
    def engine(self) -> EngineAdapter:
        """Return the adapter of the trial's engine."""
        return engine_of(self.spec)

    @cached_property
    def _by_process(self) -> Mapping[str, list[Scrape]]:
        """Return the answered scrapes of each process."""
        found: dict[str, list[Scrape]] = {}
        for scrape in self.scrapes:
            if scrape.samples:
                found.setdefault(scrape.process, []).append(scrape)
        return found

    def scrapes_of(self, name: str) -> Sequence[Scrape]:
        """Return the answered scrapes of a process."""
        return self._by_process.get(name, ())

    def file(self, name: str) -> str:
        """Return a file of the probe's folder, relative to the trial's."""
        return f"{self.raw}/{name}"

    def workers(self, role: str) -> list[str]:
        """Return the names of the workers of a pool, those of the plan or those that were scraped."""
        known = self.servers or dict.fromkeys(scrape.process for scrape in self.scrapes)
        return [name for name in known if name.startswith(f"{role}_w")]

    def all_workers(self) -> list[str]:
        """Return the names of the workers of every pool."""
        return [name for role in self.spec.split.roles for name in self.workers(role)]

    def place(self, name: str) -> str:
        """Return the name of a process with its nodes, as far as they are known."""
        process = self.servers.get(name)
        if process is None:
            return name
        hosts = self.nodes.nodes if self.nodes else ()
        known = [hosts[index] if index < len(hosts) else f"node {index}" for index in process.nodes]
        return f"{name} on {', '.join(dict.fromkeys(known))}"

    def grown(self, name: str, metric: str, labels: Mapping[str, str]) -> float | None:
        """Return by how much a counter of a process grew, None where it was not scraped."""
        scrapes = self.scrapes_of(name)
        values = (total(scrape.samples, metric, **labels) for scrape in scrapes)
        first = next((value for value in values if value is not None), None)
        values = (total(scrape.samples, metric, **labels) for scrape in reversed(scrapes))
        last = next((value for value in values if value is not None), None)
        return None if first is None or last is None else last - first

    def observed(self, name: str, histograms: Sequence[Histogram]) -> tuple[float, float] | None:
        """Return sum, in SI units, and count of what a process observed during the probe.

        The first of `histograms` that the process shows counts; None where it shows none.
        """
        for histogram in histograms:
            sums = self.grown(name, f"{histogram.name}_sum", histogram.labels)
            count = self.grown(name, f"{histogram.name}_count", histogram.labels)
            if sums is not None and count is not None:
                return sums * histogram.scale, count
        return None

    def observations(self, name: str, histograms: Sequence[Histogram]) -> list[tuple[float, float]]:
        """Return sum, in SI units, and count of what a process had observed at each scrape.

        The first of `histograms` that the process shows counts; empty where it shows none.
        """
        for histogram in histograms:
            found = [
                (sums * histogram.scale, count)
                for scrape in self.scrapes_of(name)
                if (sums := total(scrape.samples, f"{histogram.name}_sum", **histogram.labels)) is not None
                and (count := total(scrape.samples, f"{histogram.name}_count", **histogram.labels))
                is not None
            ]
            if found:
                return found
        return []


def read_run_evidence(probe: Path, spec: TrialSpec, log: RequestLog, raw: str) -> RunEvidence | None:
    """Return what the probe left behind, None where no load client recorded when it began.

    Parameters
    ----------
    probe
        The probe's folder.
    spec
        The trial.
    log
        The requests of the probe.
    raw
        The probe's folder, relative to the trial's.

    Raises
    ------
    ResumableError
        For a torn record; a plan that cannot be read is none.
    """
    if log.began_at_s is None:
        return None
    path, attempt = probe / METRICS_FILE, probe.absolute().parent
    return RunEvidence(
        attempt=attempt,
        raw=raw,
        spec=spec,
        log=log,
        began_at_s=log.began_at_s,
        scrapes=read_metrics(path) if path.exists() else (),
        servers=_servers(trial_of(attempt).plan),
        nodes=read_evidence(attempt),
        gpus=read_gpu_samples(probe),
    )


def _servers(plan: Path) -> dict[str, Process]:
    """Return the frontends and workers of a plan by name; none where the plan cannot be read."""
    try:
        processes = read_manifest(plan).processes
    except ResumableError:
        return {}
    return {process.name: process for process in processes if process.role in SERVERS}
