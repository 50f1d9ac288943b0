"""Test the closed-form capacity of a decode worker."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.spec.settings import Settings
from tune.surrogate.decode_capacity import (
    DecodeEngines,
    DecodeParameters,
    decode_capacity_qps,
    decode_engines,
)
from tune.surrogate.prefill_latency import Workload

FACTOR = st.floats(0.5, 2.0)


STEP_LIMIT_S = 0.08


@pytest.fixture(scope="module")
def engine(settings: Settings) -> DecodeEngines:
    """Tabulate the decode worker of the reference configuration."""
    spec = settings.trial_spec
    assert settings.cluster.calibration
    return decode_engines([spec], settings.cluster.calibration, Workload.from_load(spec.load)[0])


def qps(
    engine: DecodeEngines,
    scale: float = 1,
    all_reduce: float = 1,
    reads: float = 0,
    kv: float = 1,
    *,
    step_limit_s: float = STEP_LIMIT_S,
) -> float:
    """Return the capacity of one worker for one parameter sample."""
    parameters = DecodeParameters(
        np.array([all_reduce], float),
        np.array([kv], float),
        np.array([[scale]], float),
        np.array([[reads]], float),
        step_limit_s,
    )
    return float(decode_capacity_qps(engine, np.array([0]), parameters)[0, 0])


@given(scale=FACTOR, slower=st.floats(1.0, 1.5), kv=FACTOR)
def test_slower_steps_and_less_cache_never_raise_capacity(
    engine: DecodeEngines, scale: float, slower: float, kv: float
) -> None:
    assert qps(engine, scale * slower, kv=kv) <= qps(engine, scale, kv=kv) * (1 + 1e-9)
    assert qps(engine, scale, kv=kv / slower) <= qps(engine, scale, kv=kv) * (1 + 1e-9)
    assert qps(engine, scale, reads=1, kv=kv) <= qps(engine, scale, reads=0, kv=kv) * (1 + 1e-9)


def test_a_step_over_the_tpot_limit_has_no_capacity(engine: DecodeEngines) -> None:
    assert qps(engine, scale=100) == 0


def test_engines_tabulated_together_equal_engines_tabulated_singly(settings: Settings) -> None:
    assert settings.cluster.calibration
    spec, calibration = settings.trial_spec, settings.cluster.calibration
    decodes = [spec.decode.model_copy(update={"max_batch_size": size}) for size in (8, 64, 512)]
    specs = [spec.model_copy(update={"decode": decode}) for decode in decodes]
    workload = Workload.from_load(spec.load)[0]
    one, every, indices = np.ones(1), np.ones((1, 3)), np.array([2, 0, 1])
    together = decode_capacity_qps(
        decode_engines(specs, calibration, workload),
        indices,
        DecodeParameters(one, one, every, 0 * every, STEP_LIMIT_S),
    )[0]
    single = [qps(decode_engines([specs[index]], calibration, workload)) for index in indices]
    assert together.tolist() == single
    assert len(set(single)) == 3


def test_without_a_limit_on_steps_slots_and_cache_limit_capacity(engine: DecodeEngines) -> None:
    assert qps(engine, scale=3, step_limit_s=np.inf) > qps(engine, scale=3)
    assert qps(engine, step_limit_s=np.inf) == pytest.approx(qps(engine)), (
        "the cache limits the reference configuration"
    )
