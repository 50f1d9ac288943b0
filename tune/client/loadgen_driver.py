"""Run MLPerf LoadGen, Server scenario, with token latencies: its settings, its thread and its logs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import mlperf_loadgen

from tune.errors import ResumableError
from tune.loadgen.log_writer import DETAIL_LOG, SUMMARY_LOG
from tune.loadgen.run_settings import QSL_SEED, SAMPLE_INDEX_SEED, LoadGenSettings


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


def run_loadgen(settings: LoadGenSettings, folder: Path, issue: Callable[[int], None]) -> None:
    """Run one test, return when every query is complete, and leave LoadGen's logs in `folder`.

    `issue` is called in this thread with the response id of each query when it is due, and must not block or
    raise. The logs appear in `folder` when they are complete. Raises ResumableError where LoadGen leaves
    none. A process can do this once: LoadGen is a singleton.
    """
    partial = folder / "loadgen.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)

    def issue_each(queries: list[mlperf_loadgen.QuerySample]) -> None:
        for query in queries:
            issue(query.id)

    sut = mlperf_loadgen.ConstructSUT(issue_each, lambda: None)
    qsl = mlperf_loadgen.ConstructQSL(settings.samples, settings.samples, lambda _: None, lambda _: None)
    mlperf_loadgen.StartTestWithLogSettings(
        sut,
        qsl,
        _test_settings(settings),
        _log_settings(partial),
        str(partial / "no_audit.config"),
    )
    mlperf_loadgen.DestroyQSL(qsl)
    mlperf_loadgen.DestroySUT(sut)
    for name in (DETAIL_LOG, SUMMARY_LOG):
        if not (partial / name).is_file():
            raise ResumableError(
                f"LoadGen left no {name} in {partial}; is the disk full? Run the trial again."
            )
        (partial / name).replace(folder / name)
    shutil.rmtree(partial)


def _test_settings(settings: LoadGenSettings) -> mlperf_loadgen.TestSettings:
    """Return `settings` in LoadGen's terms. Source: mlperf.conf, llama3_1-405b-interactive, Server."""
    test = mlperf_loadgen.TestSettings()
    test.scenario = mlperf_loadgen.TestScenario.Server
    test.mode = mlperf_loadgen.TestMode.PerformanceOnly
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
    test.qsl_rng_seed = QSL_SEED
    test.sample_index_rng_seed = SAMPLE_INDEX_SEED
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
