from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.request_logs import make_log, spec

from tune.analysis.measure import measure
from tune.analysis.worker_utilisation import MIN_SCRAPES, scraped_breakdown
from tune.engines.kv_capacity import kv_capacity_tokens
from tune.errors import ResumableError
from tune.records.outcome import Breakdown
from tune.records.requests import RequestLog, read_requests
from tune.records.scrapes import METRICS_FILE, MetricsWriter

LIVE = Path(__file__).parents[1] / "data" / "live" / "2P1D"
IN_FLIGHT = 'dynamo_component_inflight_requests{dynamo_endpoint="generate"}'
OTHER = 'dynamo_component_inflight_requests{dynamo_endpoint="clear_kv_blocks"}'
RUNNING, KV_USED = 'trtllm:num_requests_running{engine="0"}', 'trtllm:kv_cache_usage_perc{engine="0"}'

Samples = Mapping[str, float]


def log_of(span_s: float, began_at_s: float | None = 1000.0) -> RequestLog:
    """Return a log of two requests, `span_s` apart."""
    log: RequestLog = make_log(2)
    log.scheduled_ns[1] = int(span_s * 1e9)
    return replace(log, began_at_s=began_at_s)


def write(folder: Path, exposed: Mapping[str, Sequence[Samples | None]], first_s: float = 1000.0) -> None:
    """Write what each worker exposes every two seconds from `first_s` on; None where it does not answer."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / METRICS_FILE).open("w", encoding="utf-8") as file:
        writer = MetricsWriter(file)
        for worker, rounds in exposed.items():
            for number, samples in enumerate(rounds):
                if samples is None:
                    writer.write_missed(worker, first_s + 2 * number, "refused")
                else:
                    writer.write(worker, first_s + 2 * number, samples)


def found(folder: Path, log: RequestLog) -> Breakdown:
    use = scraped_breakdown(folder, log, spec())
    assert use is not None
    return use


def held(*counts: float) -> list[Samples]:
    return [{IN_FLIGHT: count, OTHER: 7.0} for count in counts]


def engine(*batches: float) -> list[Samples]:
    return [{IN_FLIGHT: batch + 5, RUNNING: batch, KV_USED: batch / 100} for batch in batches]


def test_pools_cover_first_to_last_arrival(tmp_path: Path) -> None:
    """Scrapes span from 4 s before the first arrival to 4 s after the last, 8 s later."""
    prefill = {"prefill_w0": held(9, 9, 0, 3, 1, 2, 0, 9, 9), "prefill_w1": held(0, 0, 0, 0, 1, 0, 0, 0, 0)}
    decode = {"decode_w0": engine(90, 90, 0, 10, 20, 30, 40, 90, 90)}
    write(tmp_path, prefill | decode | {"frontend": [{"x": 1.0}]}, first_s=996.0)
    use = found(tmp_path, log_of(8.0))
    assert use.prefill_utilisation == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert (use.decode_batch, use.decode_batch_max) == (pytest.approx(20.0), pytest.approx(20.0))
    assert (use.kv_used_frac, use.decode_slots_frac) == (pytest.approx(0.2), pytest.approx(20.0 / 512))
    assert use.prefill_utilisation_max is None
    assert (use.queue_s, use.tail_queue_s) == (None, None)


def test_busiest_prefill_worker_needs_many_scrapes(tmp_path: Path) -> None:
    rounds = MIN_SCRAPES
    write(tmp_path, {"prefill_w0": held(*[1] * rounds), "prefill_w1": held(*[0] * rounds)})
    use = found(tmp_path, log_of(2.0 * (rounds - 1)))
    assert (use.prefill_utilisation, use.prefill_utilisation_max) == (0.5, 1.0)
    assert found(tmp_path, log_of(2.0 * (rounds - 2))).prefill_utilisation_max is None


def test_fullest_decode_worker_is_reported_beside_the_mean(tmp_path: Path) -> None:
    write(tmp_path, {"decode_w0": engine(10, 10), "decode_w1": engine(30, 30)})
    use = found(tmp_path, log_of(2.0))
    assert (use.decode_batch, use.decode_batch_max) == (20.0, 30.0)
    assert (use.kv_used_frac, use.kv_used_frac_max) == (pytest.approx(0.2), pytest.approx(0.3))
    assert use.prefill_utilisation is None


def test_requests_in_flight_replace_a_missing_engine_gauge(tmp_path: Path) -> None:
    write(tmp_path, {"decode_w0": engine(10, 10), "decode_w1": held(30, 30)})
    use = found(tmp_path, log_of(2.0))
    assert (use.decode_batch, use.kv_used_frac) == (20.0, None)


def test_worker_without_metrics_leaves_its_pool_unknown(tmp_path: Path) -> None:
    write(tmp_path, {"prefill_w0": held(1, 1), "prefill_w1": [None, None], "decode_w0": engine(4, 4)})
    use = found(tmp_path, log_of(2.0))
    assert (use.prefill_utilisation, use.decode_batch) == (None, 4.0)


def test_missed_scrape_is_interpolated(tmp_path: Path) -> None:
    write(tmp_path, {"decode_w0": [*engine(10), None, *engine(30)]})
    assert found(tmp_path, log_of(4.0)).decode_batch == pytest.approx(20.0)


def test_breakdown_is_none_without_metrics(tmp_path: Path) -> None:
    trial = spec()
    assert scraped_breakdown(tmp_path, log_of(2.0), trial) is None
    write(tmp_path, {"decode_w0": engine(10, 10)})
    assert scraped_breakdown(tmp_path, log_of(2.0, began_at_s=None), trial) is None
    assert scraped_breakdown(tmp_path, log_of(0.0), trial) is None
    write(tmp_path, {"frontend": [{"x": 1.0}], "decode_w0": [None]})
    assert scraped_breakdown(tmp_path, log_of(2.0), trial) is None


def test_torn_metrics_record_raises(tmp_path: Path) -> None:
    write(tmp_path, {"decode_w0": engine(10, 10)})
    path = tmp_path / METRICS_FILE
    path.write_text(path.read_text()[5:])
    with pytest.raises(ResumableError, match=METRICS_FILE):
        scraped_breakdown(tmp_path, log_of(2.0), spec())


@pytest.mark.slow
@given(st.lists(st.integers(0, 500), min_size=2, max_size=30))
def test_mean_is_linear_between_scrapes(tmp_path_factory: pytest.TempPathFactory, batches: list[int]) -> None:
    folder = tmp_path_factory.mktemp("probe")
    write(folder, {"decode_w0": engine(*batches)})
    mean = found(folder, log_of(2.0 * (len(batches) - 1))).decode_batch
    middles = [(one + other) / 2 for one, other in pairwise(batches)]
    assert mean == pytest.approx(np.mean(middles))


def mean_over_arrivals(log: RequestLog, weights: np.ndarray) -> float:
    """Return the mean sum of `weights` (n,) of requests from first token to end, up to the last arrival."""
    until = log.scheduled_ns[-1]
    held_ns = np.minimum(log.done_ns, until) - np.minimum(log.first_token_ns, until)
    return float((held_ns * weights).sum() / until)


def test_real_decode_batch_obeys_littles_law() -> None:
    """Little's law on the client's record: what is between first token and end is in the decode worker."""
    log = read_requests(LIVE / "requests.npz")
    use = found(LIVE, log)
    assert use.decode_batch == pytest.approx(mean_over_arrivals(log, np.ones(len(log))), rel=0.03)
    assert use.decode_batch_max == use.decode_batch


def test_real_kv_cache_holds_the_batch_sequences() -> None:
    """Every sequence holds its prompt and, on average over its answer, half of that."""
    log, trial = read_requests(LIVE / "requests.npz"), spec()
    tokens = mean_over_arrivals(log, log.input_tokens + log.output_tokens / 2)
    capacity = kv_capacity_tokens(trial, "decode")
    assert found(LIVE, log).kv_used_frac == pytest.approx(tokens / capacity, rel=0.05)


def test_real_prefill_pool_is_busy_without_a_busiest_worker() -> None:
    probe = measure(LIVE, spec("load.target_qps=2.0"), "raw/1/probe-1")
    use = probe.breakdown
    assert use is not None
    assert use.prefill_utilisation == pytest.approx(0.8, abs=0.1)
    assert (use.prefill_utilisation_max, use.queue_s) == (None, None)
