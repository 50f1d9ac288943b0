import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.request_logs import spec

from tune.loadgen.run_settings import LIFTED_LIMIT_NS, loadgen_settings
from tune.spec.load import MLPERF_SCHEDULE_SEED, Slo
from tune.spec.mlperf_rules import ROUNDS

SLO = Slo(ttft_p99_s=4.5, tpot_p99_s=0.08)
PROBE = ("load.concatenate_permutation=false", "load.min_duration_s=60.0", "load.min_queries=500")


def settings_for(*overrides, last_arrival_ns=10**12, slo=SLO):
    return loadgen_settings(spec(*overrides).load, slo, last_arrival_ns)


@pytest.mark.parametrize("last_arrival_ns", [1, 10**12])
def test_benchmark_run_keeps_its_minimums(last_arrival_ns):
    settings = settings_for(last_arrival_ns=last_arrival_ns)
    assert (settings.min_queries, settings.min_duration_ms) == (100, 600_000)
    assert (settings.samples, settings.concatenate_permutation) == (8313, True)
    assert (settings.ttft_limit_ns, settings.tpot_limit_ns) == (4_500_000_000, 80_000_000)
    assert settings.schedule_seed == MLPERF_SCHEDULE_SEED


def test_seeds_of_a_round_come_together():
    """A run with the schedule of a round has the other seeds of that round; any other has those of v5.1."""
    for each in ROUNDS:
        settings = settings_for(f"load.seed={each.schedule_seed}")
        assert settings.sample_seeds == (each.qsl_seed, each.sample_index_seed), each.version
    assert settings_for("load.seed=7").sample_seeds == settings_for().sample_seeds
    assert settings_for().schedule_seed == ROUNDS[0].schedule_seed


@given(last_arrival_ns=st.integers(0, 120 * 10**9))
def test_probe_ends_at_its_last_arrival(last_arrival_ns):
    """LoadGen goes on while the last arrival lies before the minimum duration or queries are missing."""
    settings = settings_for(*PROBE, last_arrival_ns=last_arrival_ns)
    assert settings.min_queries == 945  # 15.75 x 60 s
    assert settings.min_duration_ms * 10**6 <= last_arrival_ns
    assert settings.min_duration_ms <= 60_000
    assert settings.min_duration_ms == 60_000 or (settings.min_duration_ms + 1) * 10**6 > last_arrival_ns


def test_more_queries_than_rate_times_duration_are_kept():
    assert settings_for(*PROBE[:2], "load.min_queries=2000").min_queries == 2000


@pytest.mark.slow
def test_a_part_of_a_millisecond_is_rounded_up():
    assert settings_for("load.min_duration_s=600.0001").min_duration_ms == 600_001


def test_lifted_limit_is_far_away():
    settings = settings_for(slo=Slo(ttft_p99_s=None, tpot_p99_s=None))
    assert (settings.ttft_limit_ns, settings.tpot_limit_ns) == (LIFTED_LIMIT_NS, LIFTED_LIMIT_NS)


def test_own_schedule_seed_is_passed_on():
    assert settings_for("load.seed=18446744073709551615").schedule_seed == 2**64 - 1
