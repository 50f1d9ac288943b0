import json
import math
import tracemalloc
from pathlib import Path

import pytest

from tune.errors import ResumableError
from tune.loadgen.log_reader import log_figures, read_logs

LOGS = Path(__file__).parents[1] / "data" / "loadgen"
PUBLISHED = LOGS / "v5.0.25_published"
DETAIL, SUMMARY = "mlperf_log_detail.txt", "mlperf_log_summary.txt"

TTFT_S = {"min": 0.235015661, "mean": 1.521634109, "p50": 1.389949967, "p90": 2.508279175, "p95": 2.964987103,
          "p97": 3.331738221, "p99": 4.215817960, "p99_9": 6.563359514, "max": 7.481910008}  # fmt: skip
TPOT_S = {"min": 0.000021920, "mean": 0.048335664, "p50": 0.045197973, "p90": 0.058043829, "p95": 0.058498693,
          "p97": 0.058707749, "p99": 0.059020403, "p99_9": 0.059880491, "max": 0.063204263}  # fmt: skip
LATENCY_S = {"min": 0.358028425, "mean": 31.88624646, "p50": 31.932283654, "p90": 47.68467442,
             "p95": 51.799217195, "p97": 54.484578755, "p99": 65.644481493, "p99_9": 108.954888121,
             "max": 119.236526687}  # fmt: skip


def copy_of(folder: Path, to: Path, name: str = DETAIL) -> Path:
    (to / name).write_text((folder / name).read_text())
    return to / name


def test_every_figure_of_the_published_run_is_read():
    log = read_logs(PUBLISHED)
    assert log.ttft_s.model_dump() == TTFT_S
    assert log.tpot_s.model_dump() == TPOT_S
    assert log.latency_s.model_dump() == LATENCY_S
    assert log.model_dump(exclude={"ttft_s", "tpot_s", "latency_s"}) == {
        "loadgen_version": "5.0.25 @ 5232291860",
        "scenario": "Server",
        "mode": "PerformanceOnly",
        "result": "VALID",
        "invalid_reason": None,
        "perf_constraints_met": True,
        "min_duration_met": True,
        "min_queries_met": True,
        "early_stopping_met": True,
        "early_stopping_ttft": "* Run successful.",
        "early_stopping_tpot": "* Run successful.",
        "target_qps": 15.75,
        "scheduled_qps": 15.7579,
        "completed_qps": 15.726,
        "queries": 16626,
        "errors": 0,
        "tps": 9897.52,
        "scheduled_tps": 9917.58,
        "generated_query_duration_s": 1055.028977942,
        "min_duration_s": 600.0,
        "min_queries": 100,
        "concatenate_permutation": True,
        "ttft_limit_s": 4.5,
        "tpot_limit_s": 0.08,
    }


def test_figures_equal_the_published_table():
    """The table as people quote it: seconds and milliseconds, rounded."""
    log = read_logs(PUBLISHED)
    names = ("mean", "p50", "p90", "p95", "p97", "p99", "p99_9", "max")
    ttft = [round(getattr(log.ttft_s, name), 4) for name in names]
    tpot = [round(getattr(log.tpot_s, name) * 1e3, 2) for name in names]
    assert ttft == [1.5216, 1.3899, 2.5083, 2.9650, 3.3317, 4.2158, 6.5634, 7.4819]
    assert tpot == [48.34, 45.20, 58.04, 58.50, 58.71, 59.02, 59.88, 63.20]
    assert round(log.tps / 72, 2) == 137.47


def test_log_figures_use_the_names_of_the_outcome():
    record = log_figures(PUBLISHED)
    assert record.pop("constraints") == {
        "ttft_p99": pytest.approx(math.log(4.21581796 / 4.5)),
        "tpot_p99": pytest.approx(math.log(0.059020403 / 0.08)),
    }
    assert json.loads(json.dumps(record)) == {
        "target_qps": 15.75,
        "completed_qps": 15.726,
        "queries": 16626,
        "errors": 0,
        "loadgen_version": "5.0.25 @ 5232291860",
        "scenario": "Server",
        "mode": "PerformanceOnly",
        "loadgen_result": "VALID",
        "reason": None,
        "loadgen_tps": 9897.52,
        "ttft_s": without_min(TTFT_S),
        "tpot_s": without_min(TPOT_S),
        "latency_s": without_min(LATENCY_S),
    }


def without_min(latency: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in latency.items() if name != "min"}


def test_newer_loadgen_wording_is_read():
    log = read_logs(LOGS / "v6.0.17_late_ttft_and_one_token_answers")
    assert (log.loadgen_version, log.result) == ("6.0.17 @ d6147c7eb7", "INVALID")
    assert log.invalid_reason == "TTFT constrain not met: Reduce target QPS to improve latency."
    assert (log.perf_constraints_met, log.early_stopping_met, log.min_queries_met) == (False, False, True)
    assert "at least 1174 more queries" in log.early_stopping_ttft
    assert (log.queries, log.errors, log.concatenate_permutation) == (700, 20, False)
    assert (log.ttft_limit_s, log.tpot_limit_s) == (0.2, 0.02)


def test_accuracy_run_states_its_mode_and_no_figures():
    record = log_figures(LOGS / "v6.0.17_accuracy")
    assert (record["scenario"], record["mode"], record["loadgen_result"]) == ("Server", "AccuracyOnly", None)
    assert (record["queries"], record["errors"]) == (100, 0)
    assert {record[name] for name in ("ttft_s", "tpot_s", "latency_s", "loadgen_tps", "completed_qps")} == {
        None
    }


def test_other_scenario_is_stated(tmp_path):
    copy_of(LOGS / "v6.0.17_offline", tmp_path, SUMMARY)
    for folder in (LOGS / "v6.0.17_offline", tmp_path):
        record = log_figures(folder)
        assert (record["scenario"], record["mode"]) == ("Offline", "PerformanceOnly")
        assert (record["loadgen_result"], record["loadgen_tps"]) == (
            "INVALID",
            pytest.approx(150743, rel=1e-5),
        )
        assert record["reason"].startswith("Increase expected QPS")


def test_run_that_is_invalid_by_early_stopping_alone_says_so():
    assert log_figures(LOGS / "v6.0.17_661_queries_1_late")["reason"] == (
        "early stopping of TTFT: Run unsuccessful. Processed 661 queries. Would need to run at least 1 more "
        "queries, with the run being successful if every additional query were under latency."
    )
    one_error = log_figures(LOGS / "v6.0.17_458_queries_1_error")
    assert (one_error["errors"], one_error["loadgen_result"]) == (1, "INVALID")
    assert one_error["reason"].startswith("early stopping of TPOT: Run unsuccessful. Processed 458 queries.")


@pytest.mark.parametrize("folder", sorted(path.name for path in LOGS.iterdir() if path.is_dir()))
@pytest.mark.parametrize("name", [DETAIL, SUMMARY])
def test_log_copied_through_windows_reads_alike(folder, name, tmp_path):
    """Such a copy has other ends of lines and a mark of its encoding."""
    text = (LOGS / folder / name).read_text()
    copies = {"as it was": text.encode(), "copied": text.replace("\n", "\r\n").encode("utf-8-sig")}
    for kind, content in copies.items():
        (tmp_path / kind).mkdir()
        (tmp_path / kind / name).write_bytes(content)
    assert read_logs(tmp_path / "copied") == read_logs(tmp_path / "as it was")


RUNS = sorted(
    {path.name for path in LOGS.iterdir() if path.is_dir()} - {"v6.0.17_accuracy", "v6.0.17_offline"}
)
"""Performance runs of the Server scenario."""


@pytest.mark.parametrize("folder", RUNS)
@pytest.mark.parametrize("left_frac", [0.0, 0.3, 0.7, 0.95])
def test_summary_completes_a_detail_log_that_is_cut_short(folder, left_frac, tmp_path):
    copy_of(LOGS / folder, tmp_path, SUMMARY)
    text = (LOGS / folder / DETAIL).read_text()
    (tmp_path / DETAIL).write_text(text[: int(len(text) * left_frac)])
    cut, whole = log_figures(tmp_path), log_figures(LOGS / folder)
    for name in ("loadgen_version", "queries"):  # no summary states these
        cut[name] = whole[name]
    for name in ("completed_qps", "loadgen_tps"):  # two decimals in the summary, six digits in the log
        cut[name] = pytest.approx(cut[name], abs=0.0051, rel=1e-6)
    assert whole == cut


@pytest.mark.parametrize("folder", RUNS)
def test_summary_equals_the_detail_log(folder, tmp_path):
    copy_of(LOGS / folder, tmp_path, SUMMARY)
    detail, summary = read_logs(LOGS / folder), read_logs(tmp_path)
    absent = {
        "loadgen_version",
        "queries",
        "scheduled_tps",
        "generated_query_duration_s",
        "concatenate_permutation",
    }
    rounded = {"scheduled_qps", "completed_qps", "tps"}
    assert summary.model_dump(exclude=absent | rounded) == detail.model_dump(exclude=absent | rounded)
    for name in rounded:
        assert getattr(summary, name) == pytest.approx(getattr(detail, name), abs=0.0051, rel=1e-6)
    assert all(getattr(summary, name) is None for name in absent)


def test_older_loadgen_wording_is_read(tmp_path):
    text = (PUBLISHED / DETAIL).read_text()
    for old, new in (
        (
            "result_time_per_output_token_99.00_percentile_ns",
            "result_time_to_output_token_99.00_percentile_ns",
        ),
        ("result_time_to_output_token_max", "result_time_per_output_token_max_ns"),
        ("effective_target_qps", "was_effective_target_qps"),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / DETAIL).write_text(text)
    assert read_logs(tmp_path) == read_logs(PUBLISHED)


def test_truncated_log_yields_its_remaining_figures(tmp_path):
    path = copy_of(PUBLISHED, tmp_path)
    text = path.read_text()
    path.write_text(text[: text.index('"result_first_token_99.00') + 40])
    log = read_logs(tmp_path)
    assert (log.result, log.target_qps, log.queries, log.tps, log.errors) == (
        "VALID",
        15.75,
        16626,
        None,
        None,
    )
    assert (log.ttft_s.p97, log.ttft_s.p99, log.tpot_s) == (3.331738221, None, None)


def test_a_killed_run_has_no_verdict(tmp_path):
    path = copy_of(PUBLISHED, tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if '"result_' not in line and '"early_' not in line))
    record = log_figures(tmp_path)
    assert (record["loadgen_result"], record["ttft_s"], record["loadgen_tps"]) == (None, None, None)
    assert (record["target_qps"], record["queries"]) == (15.75, 16626)
    assert record["constraints"] == {"ttft_p99": None, "tpot_p99": None}


@pytest.mark.parametrize(
    "noise",
    [
        "a line that a library printed into the log\n",
        ':::MLLOG {"key": "result_validity", "value": "INVAL\n',
        ':::MLLOG {"key": "result_validity"}\n',
        ':::MLLOG {"key": "a_new_key", "value": {"result_validity": "INVALID"}}\n',
        ':::MLLOG {"key": "result_query_count", "value": null}\n',
        "\n\n\x00\x00\x00\n",
    ],
)
def test_foreign_and_torn_lines_are_skipped(noise, tmp_path):
    (tmp_path / DETAIL).write_text(noise + (PUBLISHED / DETAIL).read_text())
    assert read_logs(tmp_path) == read_logs(PUBLISHED)


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("result_validity", '"MAYBE"', "result"),
        ("result_query_count", "16626.5", "queries"),
        ("result_query_count", '"many"', "queries"),
        ("result_completed_tokens_per_second", "NaN", "tps"),
        ("result_completed_tokens_per_second", "Infinity", "tps"),
        ("result_completed_tokens_per_second", "true", "tps"),
        ("result_completed_tokens_per_second", "[9897.52]", "tps"),
        ("early_stopping_met", '"perhaps"', "early_stopping_met"),
        ("result_invalid_reason", "7", "invalid_reason"),
    ],
)
def test_null_value_counts_as_absent(key, value, field, tmp_path):
    lines = ['{"key": "loadgen_version", "value": "9"}', f'{{"key": "{key}", "value": {value}}}']
    (tmp_path / DETAIL).write_text("".join(f":::MLLOG {line}\n" for line in lines))
    assert getattr(read_logs(tmp_path), field) is None


def test_last_of_two_runs_in_one_log_counts(tmp_path):
    late = (LOGS / "v6.0.17_late_ttft_and_one_token_answers" / DETAIL).read_text()
    text = (PUBLISHED / DETAIL).read_text()
    (tmp_path / DETAIL).write_text(late + text)
    assert read_logs(tmp_path) == read_logs(PUBLISHED)
    (tmp_path / DETAIL).write_text(late + text[: text.index('"result_validity')])
    assert (read_logs(tmp_path).target_qps, read_logs(tmp_path).result) == (15.75, None), "killed"


def test_summary_replaces_an_empty_detail_log(tmp_path):
    (tmp_path / DETAIL).write_text("")
    copy_of(PUBLISHED, tmp_path, SUMMARY)
    assert read_logs(tmp_path).tps == 9897.52


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, "mlperf_log_detail.txt is missing, mlperf_log_summary.txt is missing"),
        ({DETAIL: ""}, "mlperf_log_detail.txt of 0 bytes, mlperf_log_summary.txt is missing"),
        ({DETAIL: "nothing\n", SUMMARY: "here\n"}, "detail.txt of 8 bytes, mlperf_log_summary.txt of 5"),
    ],
)
def test_unusable_logs_raise_one_clear_error(files, found, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ResumableError) as raised:
        read_logs(tmp_path)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}: no figures of LoadGen found")
    assert found in message
    assert "expected the logs of a run" in message
    assert "Name the folder" in message


def test_folder_instead_of_a_log_raises(tmp_path):
    (tmp_path / DETAIL).mkdir()
    with pytest.raises(ResumableError, match=r"mlperf_log_detail.txt: cannot be read"):
        read_logs(tmp_path)


def test_a_long_log_is_read_line_by_line(tmp_path):
    """Errors of requests, of which a log may have millions; none is kept."""
    text = (PUBLISHED / DETAIL).read_text()
    noise = f':::MLLOG {{"key": "logged_error", "value": "{"x" * 4000}"}}\n' * 4000
    verdict = text.rindex("\n", 0, text.index('"result_validity"')) + 1
    (tmp_path / DETAIL).write_text(text[:verdict] + noise + text[verdict:])
    tracemalloc.start()
    log = read_logs(tmp_path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert log == read_logs(PUBLISHED)
    assert peak_bytes < len(noise) / 10
