"""Read LoadGen's summary log into the keys of its detail log.

The summary is written for people and its wording changes between versions ("Time to Output Token", "Time per
Output Token"). It is read for what the detail log lacks.
"""

from __future__ import annotations

import re

_PLAIN = {
    "scenario": "effective_scenario",
    "mode": "effective_test_mode",
    "result is": "result_validity",
    "performance constraints satisfied": "result_perf_constraints_met",
    "min duration satisfied": "result_min_duration_met",
    "min queries satisfied": "result_min_queries_met",
    "early stopping satisfied": "early_stopping_met",
    "scheduled samples per second": "result_scheduled_samples_per_sec",
    "completed samples per second": "result_completed_samples_per_sec",
    "completed tokens per second": "result_completed_tokens_per_second",
    "samples per second": "result_samples_per_second",
    "tokens per second": "result_tokens_per_second",
    "target_qps": "effective_target_qps",
    "ttft_latency (ns)": "requested_server_ttft_latency",
    "tpot_latency (ns)": "requested_server_tpot_latency",
    "min_duration (ms)": "effective_min_duration_ms",
    "min_query_count": "effective_min_query_count",
}
_LATENCY = re.compile(
    r"(?:(min|max|mean)|(\d+\.\d+) percentile) "
    r"(first token latency|time (?:to|per) output token|latency) \(ns\)"
)
_STEMS = {"first": "result_first_token_", "time": "result_time_per_output_token_", "late": "result_"}
_NOTES = re.compile(r"^(?:(TTFT|TPOT) )?Early Stopping Result:\n((?: .*\n)*)", re.MULTILINE)
_ADVICE = re.compile(r"^Recommendations:\n((?: .*\n)*)", re.MULTILINE)
_ERRORS = re.compile(r"^(No|\d+) errors? encountered", re.MULTILINE | re.IGNORECASE)


def read_summary(text: str) -> dict[str, str]:
    """Return the figures of a summary log as text, by keys of the detail log, without unknown lines."""
    values = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and (key := _key(" ".join(name.lower().split()))):
            values[key] = value.strip()
    for kind, note in _NOTES.findall(text):
        values["_".join(["early_stopping", *[kind.lower()] * bool(kind), "result"])] = note.replace("\n", " ")
    if advice := _ADVICE.search(text):
        points = [line.removeprefix(" * ") for line in advice[1].splitlines() if line.startswith(" * ")]
        values["result_invalid_reason"] = " ".join(points)
    if errors := _ERRORS.search(text):
        values["num_errors"] = "0" if errors[1].lower() == "no" else errors[1]
    return values


def _key(name: str) -> str | None:
    """Return the detail log's key of a line that the summary calls `name`, None for an unknown line."""
    if not (latency := _LATENCY.fullmatch(name)):
        return _PLAIN.get(name)
    extreme, share, word = latency.groups()
    end = {"first": "_latency_ns", "late": "_latency_ns", "time": "_ns"}[_kind(word)]
    return _STEMS[_kind(word)] + (extreme or f"{share}_percentile") + end


def _kind(word: str) -> str:
    """Return the key of _STEMS for the words that name a latency."""
    return "first" if word.startswith("first") else word[:4]
