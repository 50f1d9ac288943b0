"""Measure request logs as if a load client had left them."""

from __future__ import annotations

from pathlib import Path

from support.request_logs import spec
from tune.analysis.measure import measure
from tune.loadgen.log_writer import write_logs
from tune.records.outcome import Probe
from tune.records.requests import RequestLog, write_requests

SHORT = ("load.min_duration_s=30.0", "load.concatenate_permutation=false")


def measure_log(folder: Path, log: RequestLog, *overrides: str, logs: bool = True) -> Probe:
    """Measure `log` from files in `folder`, under the shipped trial with `overrides` (SHORT if none).

    Without `logs` only requests.npz is there, none of LoadGen's files.
    """
    trial = spec(*(overrides or SHORT))
    folder.mkdir(exist_ok=True, parents=True)
    write_requests(folder / "requests.npz", log)
    if logs:
        write_logs(folder, log, trial.load, trial.slo, int(log.scheduled_ns[-1]))
    return measure(folder, trial, "raw/1/probe-1")
