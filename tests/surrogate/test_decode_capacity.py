"""The bound of a decode worker."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.spec.load import Slo
from tune.spec.settings import Settings
from tune.surrogate.decode_capacity import (
    DecodeEngines,
    DecodeParameters,
    decode_capacity_qps,
    decode_engines,
)
from tune.surrogate.prefill_latency import Workload

FACTOR = st.floats(0.5, 2.0)


@pytest.fixture(scope="module")
def engine(settings: Settings) -> DecodeEngines:
    return engine_of(settings, settings.trial_spec.slo)


def engine_of(settings: Settings, slo: Slo) -> DecodeEngines:
    spec = settings.trial_spec.model_copy(update={"slo": slo})
    assert settings.cluster.calibration
    return decode_engines([spec], settings.cluster.calibration, Workload.by(spec.load)[0])


def qps(
    engine: DecodeEngines, scale: float = 1, all_reduce: float = 1, reads: float = 0, kv: float = 1
) -> float:
    of_racks = DecodeParameters(np.array([all_reduce], float), np.array([kv], float), np.array([[scale]], float),
                       np.array([[reads]], float))  # fmt: skip
    return float(decode_capacity_qps(engine, np.array([0]), of_racks)[0, 0])


@given(scale=FACTOR, slower=st.floats(1.0, 1.5), kv=FACTOR)
def test_slower_steps_and_less_cache_never_hold_more(
    engine: DecodeEngines, scale: float, slower: float, kv: float
) -> None:
    assert qps(engine, scale * slower, kv=kv) <= qps(engine, scale, kv=kv) * (1 + 1e-9)
    assert qps(engine, scale, kv=kv / slower) <= qps(engine, scale, kv=kv) * (1 + 1e-9)
    assert qps(engine, scale, reads=1, kv=kv) <= qps(engine, scale, reads=0, kv=kv) * (1 + 1e-9)


def test_a_step_that_never_keeps_the_limit_holds_nothing(engine: DecodeEngines) -> None:
    assert qps(engine, scale=100) == 0


def test_engines_of_unlike_slots_are_each_as_when_asked_about_alone(settings: Settings) -> None:
    assert settings.cluster.calibration
    spec, calibration = settings.trial_spec, settings.cluster.calibration
    decodes = [spec.decode.model_copy(update={"max_batch_size": most}) for most in (8, 64, 512)]
    specs, asked = (
        [spec.model_copy(update={"decode": decode}) for decode in decodes],
        Workload.by(spec.load)[0],
    )
    one, every, which = np.ones(1), np.ones((1, 3)), np.array([2, 0, 1])
    together = decode_capacity_qps(
        decode_engines(specs, calibration, asked), which, DecodeParameters(one, one, every, 0 * every)
    )[0]
    alone = [qps(decode_engines([specs[at]], calibration, asked)) for at in which]
    assert together.tolist() == alone
    assert len(set(alone)) == 3


def test_a_lifted_limit_leaves_slots_and_cache(settings: Settings, engine: DecodeEngines) -> None:
    lifted = engine_of(settings, Slo(ttft_p99_s=4.5, tpot_p99_s=None))
    assert qps(lifted, scale=3) > qps(engine, scale=3)
    assert qps(lifted, scale=1) == pytest.approx(qps(engine, scale=1)), "the cache binds in the reference"
