"""Read the figures of a folder of LoadGen logs, in the wording of any LoadGen version."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

from tune.core.files import regular_file
from tune.errors import ResumableError
from tune.loadgen.log_values import flag, number, string, unlisted, whole
from tune.loadgen.log_writer import DETAIL_LOG, PREFIX, SUMMARY_LOG
from tune.loadgen.run_settings import LIFTED_LIMIT_NS
from tune.loadgen.summary_log import read_summary
from tune.spec.base import FrozenModel
from tune.spec.metrics import LATENCIES, LATENCY, TPOT, TTFT, LatencyMetric


class LogLatency(FrozenModel):
    """Hold the statistics of one latency of a log, in seconds; None where the log does not state one."""

    min: float | None
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p97: float | None
    p99: float | None
    p99_9: float | None
    max: float | None


class LoadGenFigures(FrozenModel):
    """Hold the figures of LoadGen's logs; None where the logs do not state one.

    `mode` is LoadGen's, such as PerformanceOnly; an accuracy run has neither result nor latencies. `tps` is
    LoadGen's official output tokens/s. `scheduled_tps` divides by the time at which the last query
    was issued instead of the time at which it ended. A limit is also None where it was lifted. `errors`
    counts what LoadGen calls errors.
    """

    loadgen_version: str | None
    scenario: str | None
    mode: str | None
    result: Literal["VALID", "INVALID"] | None
    invalid_reason: str | None
    perf_constraints_met: bool | None
    min_duration_met: bool | None
    min_queries_met: bool | None
    early_stopping_met: bool | None
    early_stopping_ttft: str | None
    early_stopping_tpot: str | None
    target_qps: float | None
    scheduled_qps: float | None
    completed_qps: float | None
    queries: int | None
    errors: int | None
    tps: float | None
    scheduled_tps: float | None
    generated_query_duration_s: float | None
    min_duration_s: float | None
    min_queries: int | None
    concatenate_permutation: bool | None
    ttft_limit_s: float | None
    tpot_limit_s: float | None
    ttft_s: LogLatency | None
    tpot_s: LogLatency | None
    latency_s: LogLatency | None

    def statistics_of(self, latency: LatencyMetric) -> LogLatency | None:
        """Return the statistics of a latency, None where the logs do not state it or LoadGen has no such."""
        statistics: LogLatency | None = getattr(self, latency.field, None)
        return statistics


_LINE = re.compile(
    re.escape(PREFIX.strip())
    + r'\s*(\{\s*"key":\s*"((?:result|early_stopping|requested|effective|generated)_[^"]*'
    + r'|num_errors|loadgen_version)".*)'
)
_FIRST_KEY = "loadgen_version"
"""Key with which a run begins. Source: LoadGen, loadgen/version.cc, LogLoadgenVersion."""

_LINE_CHARACTERS, _SUMMARY_CHARACTERS = 1 << 20, 1 << 24
"""Most characters of a line and of a summary that are read; LoadGen writes hundreds and thousands."""

_TPOT_FORMS = r"result_time_(?:per|to)_output_token_"
_LATENCY_FORMS = {
    "latency_s": (r"result_{}_latency_ns", r"result_{}_percentile_latency_ns"),
    "ttft_s": (r"result_first_token_{}_latency_ns", r"result_first_token_{}_percentile_latency_ns"),
    "tpot_s": (_TPOT_FORMS + r"{}(?:_ns)?", _TPOT_FORMS + r"{}_percentile(?:_ns)?"),
}
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p97": 97.0, "p99": 99.0, "p99_9": 99.9}


def read_logs(folder: Path) -> LoadGenFigures:
    """Read the detail log in `folder`, and for what it lacks the summary.

    Lines that are torn, foreign or unknown are skipped. Among several runs in one log the last one counts.
    Raises ResumableError when neither log has figures.
    """
    values: dict[str, Any] = {}
    for name, read in ((SUMMARY_LOG, _read_summary), (DETAIL_LOG, _read_detail)):
        values |= _read_log(folder / name, read)
    if values:
        return _figures(values)
    raise ResumableError(
        f"{folder}: no figures of LoadGen found ({_sizes_text(folder)}); expected the logs of a run, "
        f"whose detail log has lines that begin with {PREFIX.strip()!r}. Name the folder that holds them."
    )


def read_verdict(folder: Path) -> LoadGenFigures:
    """Return the figures of the logs in `folder`, which state LoadGen's verdict on the run.

    Raises ResumableError where they do not: they are missing, empty or cut short.
    """
    figures = read_logs(folder)
    if figures.result is None:
        raise ResumableError(
            f"{folder}: LoadGen's logs hold no verdict ({_sizes_text(folder)}); expected VALID or INVALID. "
            "Is the disk full?"
        )
    return figures


def log_figures(folder: Path) -> dict[str, Any]:
    """Return the figures of a log folder under the names of outcome.json, ready for JSON; None where absent.

    Raises ResumableError when the folder holds no readable log.
    """
    log = read_logs(folder)
    names = {name: name for name in ("target_qps", "completed_qps", "queries", "errors", "loadgen_version")}
    names |= {"scenario": "scenario", "mode": "mode"}
    names |= {"loadgen_result": "result", "reason": "invalid_reason", "loadgen_tps": "tps"}
    record = {name: getattr(log, field) for name, field in names.items()}
    for metric in LATENCIES:
        latency = log.statistics_of(metric)
        record[metric.field] = latency and latency.model_dump(exclude={"min"})
    limits = (("ttft_p99", log.ttft_s, log.ttft_limit_s), ("tpot_p99", log.tpot_s, log.tpot_limit_s))
    record["constraints"] = {
        name: math.log(latency.p99 / limit) if latency and limit and (latency.p99 or 0) > 0 else None  # type: ignore[operator]
        for name, latency, limit in limits
    }
    return record


def _read_log(path: Path, read: Callable[[TextIO], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return what `read` finds in a log with any end of a line, nothing where it is missing.

    Raises ResumableError where it cannot be read.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="replace", opener=regular_file) as log:
            return read(log)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ResumableError(
            f"{path}: cannot be read ({error.strerror}); expected a log of LoadGen."
        ) from error


def _sizes_text(folder: Path) -> str:
    """Return the sizes of the logs in `folder`, for a message."""
    logs = (folder / name for name in (DETAIL_LOG, SUMMARY_LOG))
    return ", ".join(
        f"{log.name} {f'of {log.stat().st_size} bytes' if log.exists() else 'is missing'}" for log in logs
    )


def _read_summary(log: TextIO) -> Mapping[str, Any]:
    """Return the values of a summary log by key of the detail log."""
    return read_summary(log.read(_SUMMARY_CHARACTERS))


def _read_detail(log: TextIO) -> Mapping[str, Any]:
    """Return the values of the last run in a detail log by key, read line by line: it may have gigabytes."""
    values: dict[str, Any] = {}
    while line := log.readline(_LINE_CHARACTERS):
        if named := _LINE.match(line):
            try:
                value = json.loads(named[1])["value"]
            except (ValueError, KeyError, RecursionError):
                continue
            if named[2] == _FIRST_KEY:
                values.clear()
            values[named[2]] = value
    return values


def _figures(values: dict[str, Any]) -> LoadGenFigures:
    """Return the figures of a log whose values are given by key of the detail log."""

    def first(read: Callable[[Any], Any], *keys: str) -> Any:
        """Return the value of the first key that has a readable one."""
        return next((value for key in keys if (value := read(values.get(key))) is not None), None)

    def seconds(key: str, per_second: float) -> float | None:
        """Return a duration in seconds, None where it is absent or stands for a lifted limit."""
        value = number(values.get(key))
        return None if value is None or value >= LIFTED_LIMIT_NS else value / per_second

    result = str(values.get("result_validity")).upper()
    ttft_note, tpot_note = (first(string, f"early_stopping_{name}_result") for name in ("ttft", "tpot"))
    note = first(string, "early_stopping_result")
    reason = unlisted(first(string, "result_invalid_reason") or "")
    return LoadGenFigures(
        loadgen_version=first(string, "loadgen_version"),
        scenario=first(string, "effective_scenario", "requested_scenario"),
        mode=first(string, "effective_test_mode", "requested_test_mode"),
        result=result if result in ("VALID", "INVALID") else None,  # type: ignore[arg-type]
        invalid_reason=reason or _unmet({TPOT.label: tpot_note, TTFT.label: ttft_note, LATENCY.label: note}),
        perf_constraints_met=first(flag, "result_perf_constraints_met"),
        min_duration_met=first(flag, "result_min_duration_met"),
        min_queries_met=first(flag, "result_min_queries_met"),
        early_stopping_met=first(flag, "early_stopping_met"),
        early_stopping_ttft=ttft_note,
        early_stopping_tpot=tpot_note,
        target_qps=first(number, "effective_target_qps", "requested_server_target_qps"),
        scheduled_qps=first(number, "result_scheduled_samples_per_sec"),
        completed_qps=first(number, "result_completed_samples_per_sec", "result_samples_per_second"),
        queries=first(whole, "result_query_count", "generated_query_count"),
        errors=first(whole, "num_errors"),
        tps=first(number, "result_completed_tokens_per_second", "result_tokens_per_second"),
        scheduled_tps=first(number, "result_token_throughput_with_loadgen_overhead"),
        generated_query_duration_s=seconds("generated_query_duration", 1e9),
        min_duration_s=seconds("effective_min_duration_ms", 1e3),
        min_queries=first(whole, "effective_min_query_count", "requested_min_query_count"),
        concatenate_permutation=first(
            flag, "effective_sample_concatenate_permutation", "requested_sample_concatenate_permutation"
        ),
        ttft_limit_s=seconds("requested_server_ttft_latency", 1e9),
        tpot_limit_s=seconds("requested_server_tpot_latency", 1e9),
        **{name: _latency(values, *forms) for name, forms in _LATENCY_FORMS.items()},
    )


def _latency(values: dict[str, Any], range_form: str, percentile_form: str) -> LogLatency | None:
    """Return one latency by the forms of its keys, None where the log states nothing of it."""

    def find(pattern: str) -> float | None:
        """Return in seconds the first number whose key matches `pattern`."""
        wanted = re.compile(pattern)
        numbers = (number(value) for key, value in values.items() if wanted.fullmatch(key))
        return next((value / 1e9 for value in numbers if value is not None), None)

    figures = {name: find(range_form.format(name)) for name in ("min", "mean", "max")}
    for name, share in _PERCENTILES.items():
        figures[name] = find(percentile_form.format(re.escape(f"{share:.2f}")))
    return LogLatency(**figures) if any(value is not None for value in figures.values()) else None


def _unmet(notes: Mapping[str, str | None]) -> str | None:
    """Return the first note that is no success: early stopping alone leaves LoadGen's reasons empty."""
    unmet = ((name, note) for name, note in notes.items() if note and "unsuccessful" in note)
    return next((f"early stopping of {name}: {unlisted(f' {note}')}" for name, note in unmet), None)
