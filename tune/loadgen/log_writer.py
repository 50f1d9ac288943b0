"""Write LoadGen's summary and detail logs from a request record, by LoadGen's own rules.

Source: loadgen/results.cc, LogSummary and LogDetail, and logs of LoadGen 5.0.25 and 6.0.17. File
hashes, lists of queries and counters of its logger are left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tune.core.arrays import IntArray
from tune.core.files import write_text
from tune.loadgen.early_stopping import PERCENTILE
from tune.loadgen.latencies import commonest, percentile
from tune.loadgen.run_settings import LoadGenSettings, loadgen_settings
from tune.loadgen.verdict import LoadGenSamples, LoadGenVerdict, loadgen_samples, loadgen_verdict
from tune.records.requests import RequestLog
from tune.spec.load import Load, Slo

SUMMARY_LOG = "mlperf_log_summary.txt"
DETAIL_LOG = "mlperf_log_detail.txt"
PREFIX = ":::MLLOG "

_SHARES = (0.50, 0.90, 0.95, 0.97, 0.99, 0.999)
_LATENCY = ("result_{}_latency_ns", "result_{}_percentile_latency_ns")
_TTFT = ("result_first_token_{}_latency_ns", "result_first_token_{}_percentile_latency_ns")
_TPOT = ("result_time_to_output_token_{}", "result_time_per_output_token_{}_percentile_ns")
_VERSION = "6.0.17 rules, written by tune"


def write_logs(folder: Path, log: RequestLog, load: Load, slo: Slo, generated_query_duration_ns: int) -> None:
    """Write mlperf_log_detail.txt and mlperf_log_summary.txt into `folder`.

    Tokens/s is the sum of output tokens over the time until the query that was issued last is done. "With
    LoadGen overhead" it is over the time at which that query was issued, here its scheduled arrival, as
    nothing delays a simulated LoadGen.

    Parameters
    ----------
    folder
        The folder of the probe.
    log
        The requests; at least one.
    load, slo
        The load that was requested, and its limits.
    generated_query_duration_ns
        The sum of all gaps that LoadGen draws.

    Raises
    ------
    ValueError
        For a record without requests.
    ConfigurationError
        When the folder cannot be written.
    """
    if not len(log):
        raise ValueError("a record without requests; LoadGen issues at least one")
    requested = loadgen_settings(load, slo, int(log.scheduled_ns[-1]))
    samples = loadgen_samples(log, requested)
    verdict = loadgen_verdict(log, samples, requested)
    settings = _settings(requested, len(log), generated_query_duration_ns)
    results = _results(log, samples, verdict)
    end_ms = int((log.scheduled_ns + samples.latency_ns).max()) / 1e6
    lines = [_line(key, value, 0.0) for key, value in settings.items()]
    if samples.errors:
        text = f"{samples.errors} requests without a countable answer; the commonest error: "
        reason = commonest(log.error[log.first_token_ns < 0]) or "no answer of two or more tokens"
        lines.append(_line("error_runtime", text + reason, end_ms, is_error=True))
    lines += [_line(key, value, end_ms) for key, value in results.items()]
    write_text(folder / DETAIL_LOG, "\n".join(lines) + "\n")
    write_text(folder / SUMMARY_LOG, _summary(settings, results, verdict))


def _line(key: str, value: Any, time_ms: float, is_error: bool = False) -> str:
    """Return one line of the detail log."""
    record = {
        "key": key,
        "value": value,
        "time_ms": time_ms,
        "namespace": "mlperf::logging",
        "event_type": "POINT_IN_TIME",
        "metadata": {"is_error": is_error, "is_warning": False, "file": "loadgen_log.py", "line_no": 0},
    }
    return PREFIX + json.dumps(record)


def _settings(requested: LoadGenSettings, queries: int, generated_query_duration_ns: int) -> dict[str, Any]:
    """Return the settings of a run by key of the detail log."""
    return {
        "loadgen_version": _VERSION,
        "sut_name": "tune",
        "requested_scenario": "Server",
        "requested_test_mode": "PerformanceOnly",
        "requested_server_target_qps": requested.target_qps,
        "requested_use_token_latencies": True,
        "requested_server_ttft_latency": requested.ttft_limit_ns,
        "requested_server_tpot_latency": requested.tpot_limit_ns,
        "effective_scenario": "Server",
        "effective_test_mode": "PerformanceOnly",
        "effective_samples_per_query": 1,
        "effective_target_qps": requested.target_qps,
        "effective_target_latency_percentile": PERCENTILE,
        "effective_min_duration_ms": requested.min_duration_ms,
        "effective_max_duration_ms": 0,
        "effective_min_query_count": requested.min_queries,
        "effective_max_query_count": 0,
        "effective_qsl_rng_seed": requested.sample_seeds[0],
        "effective_sample_index_rng_seed": requested.sample_seeds[1],
        "effective_schedule_rng_seed": requested.schedule_seed,
        "effective_performance_sample_count": requested.samples,
        "effective_sample_concatenate_permutation": requested.concatenate_permutation,
        "generated_query_count": queries,
        "generated_samples_per_query": 1,
        "generated_query_duration": generated_query_duration_ns,
    }


def _results(log: RequestLog, samples: LoadGenSamples, verdict: LoadGenVerdict) -> dict[str, Any]:
    """Return the results of a run by key of the detail log."""
    scheduled_s = int(log.scheduled_ns[-1]) / 1e9
    done_s = scheduled_s + int(samples.latency_ns[-1]) / 1e9
    tokens = int(samples.tokens.sum())
    met = {
        "result_validity": verdict.result,
        "result_perf_constraints_met": verdict.perf_constraints_met,
        "result_min_duration_met": verdict.min_duration_met,
        "result_min_queries_met": verdict.min_queries_met,
        "early_stopping_met": verdict.early_stopping_met,
    }
    if verdict.result == "INVALID":
        met["result_invalid_reason"] = " ".join(verdict.advice)
    return met | {
        "early_stopping_ttft_result": verdict.ttft_note.replace("\n", " "),
        "early_stopping_tpot_result": verdict.tpot_note.replace("\n", " "),
        "result_query_count": len(log),
        "result_scheduled_samples_per_sec": _rate(len(log) - 1, scheduled_s),
        "result_completed_samples_per_sec": _rate(len(log) - 1, done_s),
        **_latencies(samples.latency_ns, *_LATENCY),
        **_latencies(samples.ttft_ns, *_TTFT),
        "result_token_throughput_with_loadgen_overhead": _rate(tokens, scheduled_s),
        **_latencies(samples.tpot_ns, *_TPOT),
        "result_completed_tokens_per_second": _rate(tokens, done_s),
        "num_errors": samples.errors,
    }


def _rate(count: int, duration_s: float) -> float | None:
    """Return a rate to six significant digits, as LoadGen prints a double; None for no duration."""
    return float(f"{count / duration_s:.6g}") if duration_s > 0 else None


def _latencies(values_ns: IntArray, range_form: str, percentile_form: str) -> dict[str, int]:
    """Return the statistics of one latency in ns, by key of the detail log."""
    ordered = np.sort(values_ns)
    figures = {
        range_form.format("min"): int(ordered[0]),
        range_form.format("max"): int(ordered[-1]),
        range_form.format("mean"): int(ordered.sum()) // len(ordered),
    }
    for share in _SHARES:
        figures[percentile_form.format(f"{share * 100:.2f}")] = percentile(ordered, share)
    return figures


_NO_ERRORS = "No errors encountered during test."
_SEE_DETAIL = "   See the detailed log for why this may have occurred.\n"

_SUMMARY = """\
{rule}
MLPerf Results Summary
{rule}
SUT name : {sut_name}
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : {result_completed_samples_per_sec}
Completed tokens per second: {result_completed_tokens_per_second}
Result is : {result_validity}
  Performance constraints satisfied : {result_perf_constraints_met}
  Min duration satisfied : {result_min_duration_met}
  Min queries satisfied : {result_min_queries_met}
  Early stopping satisfied: {early_stopping_met}
{recommendations}TTFT Early Stopping Result:
{ttft_note}
TPOT Early Stopping Result:
{tpot_note}

{rule}
Additional Stats
{rule}
Scheduled samples per second : {result_scheduled_samples_per_sec}
{latencies}
{rule}
Test Parameters Used
{rule}
samples_per_query : 1
target_qps : {effective_target_qps}
ttft_latency (ns): {requested_server_ttft_latency}
tpot_latency (ns): {requested_server_tpot_latency}
min_duration (ms): {effective_min_duration_ms}
min_query_count : {effective_min_query_count}
performance_sample_count : {effective_performance_sample_count}

No warnings encountered during test.

{errors}
"""


def _summary(settings: dict[str, Any], results: dict[str, Any], verdict: LoadGenVerdict) -> str:
    """Return the text of the summary log."""
    advice = "".join(f" * {text}\n" for text in verdict.advice)
    if not verdict.min_queries_met:
        advice += _SEE_DETAIL
    errors = results["num_errors"]
    texts = {key: _text(value) for key, value in (settings | results).items()}
    return _SUMMARY.format(
        rule="=" * 48,
        recommendations=f"Recommendations:\n{advice}" if verdict.result == "INVALID" else "",
        ttft_note=verdict.ttft_note,
        tpot_note=verdict.tpot_note,
        latencies="\n".join(_summary_latencies(results)),
        errors=f"{errors} ERRORS encountered. See detailed log." if errors else _NO_ERRORS,
        **texts,
    )


def _text(value: Any) -> str:
    """Return a value as the summary log prints it."""
    if isinstance(value, bool):
        return "Yes" if value else "NO"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _summary_latencies(results: dict[str, Any]) -> list[str]:
    """Return the lines of the summary log that state latencies."""
    lines: list[str] = []
    for (range_form, percentile_form), label, unit in (
        (_LATENCY, "latency", "latency"),
        (_TTFT, "First Token latency", "first token latency"),
        (_TPOT, "Time per Output Token", "time to output token"),
    ):
        for name in ("min", "max", "mean"):
            lines.append(f"{name.capitalize()} {label} (ns) : {results[range_form.format(name)]}")
        for share in _SHARES:
            text = f"{share * 100:.2f}"
            lines.append(f"{text} percentile {unit} (ns) : {results[percentile_form.format(text)]}")
        lines.append("")
    return lines
