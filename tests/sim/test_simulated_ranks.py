"""Test attention data parallelism in whole simulated trials: limits and links of a rank, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.sim_trials import digest, make_trial, short_trial, tabled

from tune.analysis.breakdown import decode_slots
from tune.engines.kv_capacity import decode_batch_that_kv_holds, kv_capacity_tokens
from tune.sim.disaggregated import transfer_s
from tune.sim.simulator import simulate_serving
from tune.sim.worker_models import decode_worker
from tune.spec.timed_rules import check_timed

RANKED = "decode.extra={enable_attention_dp: true}"


@pytest.fixture
def tables(tmp_path: Path) -> tuple[str, ...]:
    """Return overrides that time all steps by a table."""
    return tabled(tmp_path)


def test_slots_and_cache_are_those_of_a_rank() -> None:
    """Four ranks share the memory of a worker; each has max_batch_size slots."""
    plain, ranked = make_trial()[0], make_trial(RANKED)[0]
    assert decode_slots(ranked.decode) == 4 * decode_slots(plain.decode)
    tokens = kv_capacity_tokens(ranked, "decode")
    assert tokens == kv_capacity_tokens(plain, "decode") // (4 * 32) * 32
    assert decode_worker(*make_trial(RANKED), 0.0)[0].kv_tokens == tokens
    assert 0 <= decode_batch_that_kv_holds(plain) - decode_batch_that_kv_holds(ranked) <= 4


def test_a_cache_travels_on_the_link_of_one_rank() -> None:
    (plain, calibration), (ranked, _) = make_trial(), make_trial(RANKED)
    prompt = np.array([1000, 9000])
    assert transfer_s(ranked, calibration, ranked.decode, prompt) == pytest.approx(
        4 * transfer_s(plain, calibration, plain.decode, prompt)
    )


def test_ranks_hold_more_sequences_of_a_smaller_batch_each(tables: tuple[str, ...]) -> None:
    """A worker of four ranks has a quarter of the batch on each, and so shorter steps; all are answered."""
    shape = (*tables, "decode.max_batch_size=64", "split.decode_workers=1", "load.target_qps=8")
    plain = simulate_serving(*short_trial(*shape))
    ranked = simulate_serving(*short_trial(*shape, RANKED))
    assert (ranked.error == "").all()
    assert plain.pools is not None
    assert ranked.pools is not None
    assert (ranked.done_ns - ranked.first_token_ns).mean() < (plain.done_ns - plain.first_token_ns).mean()


def test_the_router_among_ranks_is_a_setting(tables: tuple[str, ...]) -> None:
    routers = ("null", "fewest_tokens", "fewest_requests", "round_robin")
    digests = [
        digest(simulate_serving(*short_trial(*tables, RANKED, f"cluster.calibration.rank_router={router}")))
        for router in routers
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_attention_data_parallelism_needs_a_table(tables: tuple[str, ...]) -> None:
    spec, calibration = make_trial(RANKED)
    (finding,) = check_timed(spec, calibration)
    assert finding.path == "decode.extra.enable_attention_dp"
    spec, calibration = make_trial(RANKED, "prefill.extra={enable_attention_dp: true}", *tables)
    assert not check_timed(spec, calibration)


def test_what_has_ranks_and_is_not_simulated_is_refused(tables: tuple[str, ...]) -> None:
    drafts = "decode.extra={speculative_config: {decoding_type: NGram}}"
    findings = check_timed(*make_trial(*tables, drafts))
    assert [(finding.severity, finding.path) for finding in findings] == [
        ("error", "decode.extra.speculative_config")
    ]
    assert "not simulated" in findings[0].why
