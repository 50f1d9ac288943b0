"""Write what a probe of a live deployment leaves behind, as far as the checks of a run read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from support.composed import composed
from support.request_logs import make_log
from tune.analysis.run_checks.table import CHECKS, run_checks
from tune.deploy.plan import render
from tune.manifest.process_manifest import MANIFEST_FILE
from tune.records.evidence import Evidence, write_evidence
from tune.records.gpu_samples import GpuSamples, write_gpu_samples
from tune.records.requests import RequestLog
from tune.records.run_check import RunCheck
from tune.records.scrapes import METRICS_FILE, MetricsWriter, parse_samples
from tune.spec.settings import Settings

BEGAN_AT_S = 1_000.0
HOSTS = ("g01", "g02", "g03", "g04")
SMALL_RACK = (
    *("cluster=slurm", "hardware.nodes=4", "split.prefill_workers=2", "split.decode_workers=2"),
    *("load.target_qps=4", "stack.system_port=9100"),
)


@cache
def _planned(*overrides: str) -> tuple[Settings, str]:
    """Return the configuration of two workers a pool, one on each of four nodes, and its processes.json."""
    settings = composed(*SMALL_RACK, *overrides)
    return settings, render(settings.trial_spec, settings.cluster).files[MANIFEST_FILE]


@dataclass
class LeftRun:
    """Hold what a probe of four workers leaves in `root`.

    `scrapes`: (seconds since the first query, process, text of /metrics or None where it did not answer).
    """

    root: Path
    overrides: Sequence[str] = ("stack=dynamo_v1",)
    scrapes: Sequence[tuple[float, str, str | None]] = ()
    transport: Mapping[str, str] | None = None
    gpus: GpuSamples | None = None
    has_plan: bool = True
    log: RequestLog = field(default_factory=lambda: replace(make_log(200, 4.0), began_at_s=BEGAN_AT_S))

    def check(self, name: str) -> RunCheck:
        """Return what the check `name` finds; all others are made, too."""
        settings, manifest = _planned(*self.overrides)
        probe = self.root / "t0" / "raw" / "1" / "probe-1"
        (self.root / "t0" / "plan").mkdir(parents=True)
        probe.mkdir(parents=True, exist_ok=True)
        if self.has_plan:
            (self.root / "t0" / "plan" / MANIFEST_FILE).write_text(manifest)
        write_evidence(
            probe.parent,
            Evidence(nodes=HOSTS, versions={}, hardware={}, transport=self.transport, missing={}),
        )
        if self.gpus:
            write_gpu_samples(probe, self.gpus)
        if self.scrapes:
            with (probe / METRICS_FILE).open("w", encoding="utf-8") as file:
                writer = MetricsWriter(file)
                for after_s, process, text in self.scrapes:
                    if text is None:
                        writer.write_missed(process, BEGAN_AT_S + after_s, "refused")
                    else:
                        writer.write(process, BEGAN_AT_S + after_s, parse_samples(text))
        found = run_checks(probe, settings.trial_spec, self.log, "raw/1/probe-1")
        assert [check.name for check in found] == [kind.name for kind in CHECKS]
        (check,) = [check for check in found if check.name == name]
        return check
