"""Compare schedule, verdict and figures of the real LoadGen with the written log, to the digit."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.real_loadgen import Script, command, run_real_loadgen
from support.right_client import make_settings
from support.waiting import wait_for

from tune.client.client_settings import ClientSettings
from tune.loadgen.log_writer import write_logs
from tune.loadgen.run_settings import loadgen_settings
from tune.spec.load import Load
from tune.workload.arrivals import arrivals_ns, generated_query_duration_ns

DETAIL, SUMMARY = "mlperf_log_detail.txt", "mlperf_log_summary.txt"
LIMIT_S, LATE_S = 1.0, 1.3
LOADGENS_ALONE = {
    "result_overlatency_query_count": "of a limit on the whole latency, which token latencies replace",
    "result_token_throughput": "tokens over a latency in nanoseconds, no rate",
}
MIN_DURATION = "Increase the target QPS so the loadgen pre-generates more queries."
MIN_QUERIES = "The test exited early, before enough queries were issued."
TTFT = "TTFT constrain not met: Reduce target QPS to improve latency."
TPOT = "TPOT constrain not met: Reduce target QPS to improve latency."
MET = ("perf_constraints", "min_duration", "min_queries", "early_stopping")


@dataclass(frozen=True)
class Case:
    """Describe a run of `queries` at 2000/s: `late` of them meet `fate`; `missed` of MET, and why."""

    queries: int
    late: int = 0
    fate: str = "ttft"
    missed: tuple[str, ...] = ()
    reason: str = ""
    max_queries: int = 0
    load: dict[str, Any] = field(default_factory=dict)


WHOLE = {"load__concatenate_permutation": True, "load__min_queries": 600, "load__min_duration_s": 0.1}
CASES = {
    "458 in time are too few": Case(458, missed=("early_stopping",)),
    "459 in time are enough": Case(459),
    "1 late first token of 661": Case(661, 1, missed=("early_stopping",)),
    "1 late first token of 662": Case(662, 1),
    "1 slow answer of 661": Case(661, 1, "tpot", missed=("early_stopping",)),
    "1 slow answer of 662": Case(662, 1, "tpot"),
    "62 late first tokens of 8313": Case(8313, 62),
    "63 late first tokens of 8313": Case(8313, 63, missed=("early_stopping",)),
    "62 slow answers of 8313": Case(8313, 62, "tpot"),
    "63 slow answers of 8313": Case(8313, 63, "tpot", missed=("early_stopping",)),
    "p99 of TTFT is in time at 6 of 700": Case(700, 6, missed=("early_stopping",)),
    "p99 of TTFT is late at 7 of 700": Case(
        700, 7, missed=("perf_constraints", "early_stopping"), reason=TTFT
    ),
    "p99 of TPOT is late at 7 of 700": Case(
        700, 7, "tpot", missed=("perf_constraints", "early_stopping"), reason=TPOT
    ),
    "answers of one token": Case(700, 20, "one"),
    "whole passes": Case(600, load=WHOLE),
    "duration alone is missed": Case(
        600, missed=("min_duration",), reason=MIN_DURATION, max_queries=600,
        load=WHOLE | {"load__min_duration_s": 1.0},
    ),
    "queries alone are missed": Case(
        600, missed=("min_queries",), reason=MIN_QUERIES, max_queries=600,
        load=WHOLE | {"load__min_queries": 1000},
    ),
    "everything is missed": Case(
        600, 300, missed=MET, reason=f"{TTFT} {MIN_DURATION} {MIN_QUERIES}", max_queries=600,
        load=WHOLE | {"load__min_queries": 1000, "load__min_duration_s": 1.0},
    ),
}  # fmt: skip
QUICK = {"1 late first token of 661", "duration alone is missed"}


def settings_for(case: Case) -> ClientSettings:
    plain = {"load__concatenate_permutation": False, "load__min_queries": case.queries}
    short = {"load__target_qps": 2000.0, "load__min_duration_s": 0.1}
    return make_settings(**plain | short | case.load, slo__ttft_p99_s=LIMIT_S, slo__tpot_p99_s=LIMIT_S)


def entries(folder: Path) -> dict[str, Any]:
    """Return the last value of each key of the detail log, in one line where LoadGen joins several."""
    records = []
    for line in (folder / DETAIL).read_text().splitlines():
        records.append(json.loads(line.removeprefix(":::MLLOG ")))
    values = {record["key"]: record["value"] for record in records}
    return {key: one_line(value) if isinstance(value, str) else value for key, value in values.items()}


def one_line(text: str) -> str:
    return " ".join(text.replace(" * ", " ").split())


def results(folder: Path) -> dict[str, Any]:
    found = {key: value for key, value in entries(folder).items() if key.startswith(("result_", "early_"))}
    return {key: value for key, value in found.items() if key not in LOADGENS_ALONE}


def verdict_text(folder: Path) -> str:
    text = (folder / SUMMARY).read_text()
    return text[text.index("Scenario :") : text.index("Additional Stats")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_written_log_equals_loadgens_log(name: str, tmp_path: Path) -> None:
    case, theirs, ours = CASES[name], tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    load, slo = settings_for(case).load, settings_for(case).slo
    arrivals = arrivals_ns(load)
    asked = loadgen_settings(load, slo, int(arrivals[-1]))
    fates = {query * case.queries // max(case.late, 1): case.fate for query in range(case.late)}
    log = run_real_loadgen(theirs, Script(asked, LATE_S, fates, case.max_queries))
    drawn_ns = generated_query_duration_ns(len(arrivals), load.target_qps, load.schedule_seed)
    write_logs(ours, log, load, slo, drawn_ns)
    assert np.array_equal(log.scheduled_ns, arrivals[: case.queries])
    assert_drawn(entries(theirs), load)
    assert_expected(entries(theirs), case)
    assert_same(results(ours), results(theirs))
    assert verdict_text(ours) == verdict_text(theirs)
    if not case.max_queries:  # LoadGen reports its early end as an error
        assert entries(ours)["num_errors"] == entries(theirs)["num_errors"]


def assert_drawn(stated: dict[str, Any], load: Load) -> None:
    queries = len(arrivals_ns(load))
    drawn_ns = generated_query_duration_ns(queries, load.target_qps, load.schedule_seed)
    assert stated["generated_query_count"] == queries
    assert stated["generated_query_duration"] == drawn_ns


def assert_expected(stated: dict[str, Any], case: Case) -> None:
    missed = {key for key in MET if not stated.get(f"result_{key}_met", stated.get(f"{key}_met"))}
    assert missed == set(case.missed)
    assert stated["result_validity"] == ("INVALID" if case.missed else "VALID")
    assert stated.get("result_invalid_reason", "") == case.reason


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Compare all figures but one: LoadGen issues its last query a little late, which the record ignores."""
    key = "result_token_throughput_with_loadgen_overhead"
    assert theirs.pop(key) <= ours.pop(key)
    assert ours == theirs


SCHEDULES = {
    "the published run": {"load__target_qps": 15.75, "load__dataset__samples": 8313},
    "its user.conf": {"load__target_qps": 14.49, "load__dataset__samples": 8313},
    "one pass": {"load__target_qps": 13.0, "load__dataset__samples": 8313},
    "an own seed": {"load__target_qps": 22.2, "load__dataset__samples": 8313, "load__seed": 7},
    "the largest seed": {"load__target_qps": 5.0, "load__seed": 2**64 - 1},
    "a low rate": {"load__target_qps": 0.3, "load__min_queries": 1},
    "a high rate": {"load__target_qps": 500.0},
    "many passes": {"load__target_qps": 29.3, "load__dataset__samples": 100},
    "no passes": {"load__target_qps": 15.75, "load__concatenate_permutation": False},
    "a long one without": {
        "load__target_qps": 40.0, "load__concatenate_permutation": False, "load__seed": 12345,
    },
    "a short one without": {
        "load__target_qps": 3.7, "load__concatenate_permutation": False, "load__min_duration_s": 60.0,
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_loadgens_to_the_nanosecond(name: str, tmp_path: Path) -> None:
    """LoadGen states the number of queries and the sum of their gaps before it issues the first."""
    changes = {"load__min_duration_s": 600.0} | SCHEDULES[name]
    settings = make_settings(**changes)
    arrivals = arrivals_ns(settings.load)
    asked = loadgen_settings(settings.load, settings.slo, int(arrivals[-1]))
    assert_drawn(draw(tmp_path, Script(asked)), settings.load)


def draw(folder: Path, script: Script) -> dict[str, Any]:
    """Return what LoadGen states of the schedule that it drew; stop the run."""
    with subprocess.Popen(command(folder, script)) as process:
        try:
            wait_for(lambda: "generated_query_duration" in drawn_in(folder) or process.poll() is not None)
            return drawn_in(folder)
        finally:
            process.kill()


def drawn_in(folder: Path) -> dict[str, Any]:
    if not (folder / DETAIL).exists():
        return {}
    lines = [line for line in (folder / DETAIL).read_text().splitlines() if '"generated_' in line]
    records = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines if line.endswith("}")]
    return {record["key"]: record["value"] for record in records}
