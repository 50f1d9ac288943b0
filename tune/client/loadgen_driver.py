"""Run MLPerf LoadGen, Server scenario, with token latencies: its settings, its sinks and its logs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import mlperf_loadgen
import numpy as np

from tune.errors import ResumableError
from tune.loadgen.accuracy_log import ACCURACY_LOG, TOKEN_DTYPE
from tune.loadgen.log_writer import DETAIL_LOG, SUMMARY_LOG
from tune.loadgen.run_settings import LoadGenSettings

TestMode = Literal["performance", "accuracy"]

_LOGS: Mapping[TestMode, tuple[str, ...]] = {
    "performance": (DETAIL_LOG, SUMMARY_LOG),
    "accuracy": (DETAIL_LOG, SUMMARY_LOG, ACCURACY_LOG),
}
"""Logs that LoadGen leaves in each mode."""


class LoadGenSink:
    """Report tokens and answers to LoadGen, which notes the time of each call.

    LoadGen's log counts an answer of one token as an error, like one of none. Source: RecordSampleCompletion
    in MLPerf Inference, loadgen/logging.cc.
    """

    def first_token(self, response_id: int) -> None:
        """Report the first token of the query with `response_id`."""
        mlperf_loadgen.FirstTokenComplete([mlperf_loadgen.QuerySampleResponse(response_id, 0, 0)])

    def complete(self, response_id: int, output_tokens: int) -> None:
        """Report the end of the query with `response_id`, whose answer has `output_tokens` tokens."""
        response = mlperf_loadgen.QuerySampleResponse(response_id, 0, 0, output_tokens)
        mlperf_loadgen.QuerySamplesComplete([response])


class AnswerSink:
    """Report answers with their token ids to LoadGen, which logs them in an accuracy run.

    `ids_of` returns the token ids of the answer to a query by its response id; none for a failed one.
    """

    def __init__(self, ids_of: Callable[[int], list[int]]) -> None:
        self._ids_of = ids_of

    def first_token(self, response_id: int) -> None:
        """Report the first token of the query with `response_id`."""
        mlperf_loadgen.FirstTokenComplete([mlperf_loadgen.QuerySampleResponse(response_id, 0, 0)])

    def complete(self, response_id: int, output_tokens: int) -> None:
        """Report the answer of `output_tokens` tokens; LoadGen copies its ids within the call."""
        ids = np.array(self._ids_of(response_id), TOKEN_DTYPE)
        address, size_bytes = ids.ctypes.data, ids.nbytes
        response = mlperf_loadgen.QuerySampleResponse(response_id, address, size_bytes, output_tokens)
        mlperf_loadgen.QuerySamplesComplete([response])


def run_loadgen(
    settings: LoadGenSettings,
    folder: Path,
    issue: Callable[[int, int], None],
    mode: TestMode = "performance",
) -> None:
    """Run one test, return when every query is complete, and leave LoadGen's logs in `folder`.

    `issue` is called in this thread with response id and sample index of each query when it is due, and must
    not block or raise. In accuracy mode each sample is issued once. The logs appear in `folder` when they
    are complete. Raises ResumableError where LoadGen leaves none. A process can do this once: LoadGen is a
    singleton.
    """
    partial = folder / "loadgen.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()

    def issue_each(queries: list[mlperf_loadgen.QuerySample]) -> None:
        for query in queries:
            issue(query.id, query.index)

    sut = mlperf_loadgen.ConstructSUT(issue_each, lambda: None)
    qsl = mlperf_loadgen.ConstructQSL(settings.samples, settings.samples, lambda _: None, lambda _: None)
    mlperf_loadgen.StartTestWithLogSettings(
        sut,
        qsl,
        _test_settings(settings, mode),
        _log_settings(partial),
        str(partial / "no_audit.config"),
    )
    mlperf_loadgen.DestroyQSL(qsl)
    mlperf_loadgen.DestroySUT(sut)
    for name in _LOGS[mode]:
        if not (partial / name).is_file():
            raise ResumableError(
                f"LoadGen left no {name} in {partial}; is the disk full? Run the trial again."
            )
        (partial / name).replace(folder / name)
    shutil.rmtree(partial)


def _test_settings(settings: LoadGenSettings, mode: TestMode = "performance") -> mlperf_loadgen.TestSettings:
    """Return `settings` in LoadGen's terms. Source: mlperf.conf, llama3_1-405b-interactive, Server."""
    test = mlperf_loadgen.TestSettings()
    test.scenario = mlperf_loadgen.TestScenario.Server
    modes = mlperf_loadgen.TestMode
    test.mode = modes.AccuracyOnly if mode == "accuracy" else modes.PerformanceOnly
    test.server_target_qps = settings.target_qps
    test.server_target_latency_ns = 0
    test.server_target_latency_percentile = 0.99
    test.use_token_latencies = True
    test.ttft_latency = settings.ttft_limit_ns
    test.tpot_latency = settings.tpot_limit_ns
    test.min_duration_ms = settings.min_duration_ms
    test.min_query_count = settings.min_queries
    test.performance_sample_count_override = settings.samples
    test.sample_concatenate_permutation = settings.concatenate_permutation
    test.qsl_rng_seed, test.sample_index_rng_seed = settings.sample_seeds
    test.schedule_rng_seed = settings.schedule_seed
    return test


def _log_settings(folder: Path) -> mlperf_loadgen.LogSettings:
    """Return settings under which LoadGen logs into `folder`, without a trace."""
    output = mlperf_loadgen.LogOutputSettings()
    output.outdir = str(folder)
    output.copy_summary_to_stdout = False
    log = mlperf_loadgen.LogSettings()
    log.log_output = output
    log.enable_trace = False
    return log
