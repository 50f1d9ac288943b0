"""Test the interpolation of step tables, and the simulator with them."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sim_trials import digest, short_trial, tpot_s, ttft_s
from support.vllm_trials import vllm_settings

from tune.engines.check import check_simulated
from tune.sim.decode_pool import DecodeSteps
from tune.sim.prefill_loop import prefill
from tune.sim.prefill_pool import PrefillRequests, PrefillWorker, empty_prefill_result
from tune.sim.simulator import simulate_serving
from tune.sim.step_tables import (
    SHORTEST_STEP_S,
    ExtrapolatedSteps,
    decode_steps,
    prefill_line,
    prefill_table,
)
from tune.sim.worker_models import decode_worker, prefill_worker
from tune.spec.step_table import StepRow

PREFILL = (StepRow(1, 512, 0, 20.0), StepRow(1, 1024, 0, 40.0), StepRow(1, 1024, 1024, 50.0))
DECODE = (
    StepRow(1, 1, 100, 8.0),
    StepRow(1, 1, 300, 10.0),
    StepRow(4, 4, 400, 9.0),
    StepRow(4, 4, 1200, 13.0),
)

ROWS = st.lists(
    st.builds(
        StepRow,
        batch=st.integers(1, 32),
        new_tokens=st.just(0),
        context_tokens=st.integers(0, 20_000),
        milliseconds=st.floats(0.01, 100),
        steps=st.integers(1, 50),
    ),
    min_size=2,
    max_size=30,
).filter(lambda rows: len({row.batch for row in rows}) > 1)


def decode_step_s(steps: DecodeSteps, batch: int, context: float) -> float:
    segment = int(np.searchsorted(steps.bound_tokens, context / batch, side="right"))
    return float(steps.batch_s[batch, segment] + steps.token_s[batch, segment] * context)


def test_a_decode_step_in_the_table_is_as_measured() -> None:
    steps = decode_steps(DECODE, 8, 1.0)
    for row in DECODE:
        assert decode_step_s(steps, row.batch, row.context_tokens or 0) == pytest.approx(
            row.milliseconds / 1e3
        )


def test_between_and_beyond_its_points_a_decode_table_is_linear() -> None:
    """Mean contexts of 100 and 300: 8 and 10 ms of one sequence, 9 and 13 ms of four."""
    steps = decode_steps(DECODE, 8, 2.0)
    expected_ms = {
        (1, 200): 9.0,
        (4, 800): 11.0,
        (2, 400): 9.0 + 2 / 3,
        (1, 500): 12.0,
        (7, 700): 10.0,
        (1, 0): 7.0,
    }
    for (batch, context), milliseconds in expected_ms.items():
        assert decode_step_s(steps, batch, context) == pytest.approx(2 * milliseconds / 1e3), (batch, context)


def test_a_decode_table_knows_what_it_measured() -> None:
    steps = decode_steps(DECODE, 8, 1.0)
    assert steps.is_known.tolist() == [[False, 1 <= batch <= 4, False] for batch in range(9)]


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, slots=st.integers(1, 64))
def test_decode_steps_are_monotone_and_never_negative(rows: list[StepRow], slots: int) -> None:
    steps = decode_steps(tuple(rows), slots, 1.0)
    known = [row.context_tokens / row.batch for row in rows if row.context_tokens is not None]
    for context in (0.0, *np.linspace(min(known), max(known), 7)):
        times_s = [decode_step_s(steps, batch, context * batch) for batch in range(1, slots + 1)]
        assert min(times_s) >= SHORTEST_STEP_S * (1 - 1e-6)
        if context:
            assert all(later >= earlier - 1e-9 for earlier, later in pairwise(times_s))
    for batch in range(1, slots + 1):
        over_contexts = [decode_step_s(steps, batch, mean * batch) for mean in np.linspace(0, 30_000, 40)]
        assert all(later >= earlier - 1e-9 for earlier, later in pairwise(over_contexts))


def served_ms(tokens: int, budget: int) -> tuple[float, list[int]]:
    """Return the milliseconds of one prompt in chunks of `budget`, its steps and those outside PREFILL."""
    limits = PrefillWorker(
        max_sequences=1,
        token_budget=budget,
        kv_tokens=100_000,
        kv_block_tokens=32,
        chunked=True,
        equal_progress=False,
        static_batch=False,
        step_s=0.0,
        token_s=0.0,
        pair_s=0.0,
        table_scale=2.0,
        fill_steps=0,
        window_s=1e9,
    )
    prompts = PrefillRequests(np.zeros(1), np.array([tokens]), np.zeros(1))
    result = empty_prefill_result(np.zeros(1, np.int64), 1)
    prefill(limits, np.ones(1), prefill_table(PREFILL), prompts, result)
    return 1e3 * float(result.done_s[0]), result.steps[0].tolist()


def test_a_prefill_step_is_found_by_its_tokens_and_what_they_attend_to() -> None:
    """Tokens attend to 512 in a prompt of 1,024, to 1,536 in a second chunk of 1,024; steps are doubled."""
    assert served_ms(1024, 1024) == (pytest.approx(2 * 40.0), [1, 0])
    assert served_ms(2048, 1024) == (pytest.approx(2 * (40.0 + 50.0)), [2, 0])
    assert served_ms(768, 1024) == (pytest.approx(2 * (20.0 + 38.75) / 2), [1, 0])


def test_beyond_a_prefill_table_steps_go_on_as_a_line() -> None:
    """1,536 tokens attend to 768: 42.5 ms at 1,024 and 22.5 more. The third chunk attends to 2,560."""
    assert served_ms(1536, 2048) == (pytest.approx(2 * 65.0), [1, 1])
    assert served_ms(3072, 1024) == (pytest.approx(2 * (40.0 + 50.0 + 60.0)), [3, 1])


def test_scattered_times_are_averaged_by_their_steps() -> None:
    """A lone slow step of two sequences does not lengthen the steps of all larger batches."""
    rows = (StepRow(1, 1, None, 8.0, 100), StepRow(2, 2, None, 16.0, 1), StepRow(3, 3, None, 9.0, 99))
    steps = decode_steps(rows, 4, 1.0)
    assert steps.batch_s[1:, 0] == pytest.approx(np.array([8.0, 9.07, 9.07, 9.07]) / 1e3)


def test_the_gap_between_steps_is_added_to_each() -> None:
    plain, with_gap = decode_steps(DECODE, 8, 2.0), decode_steps(DECODE, 8, 2.0, gap_s=0.003)
    for row in DECODE:
        context = row.context_tokens or 0
        seconds = [decode_step_s(steps, row.batch, context) for steps in (plain, with_gap)]
        assert seconds[1] - seconds[0] == pytest.approx(0.003)


def test_beyond_a_table_times_follow_the_trend_and_not_the_last_row() -> None:
    """Steps of 8 ms and 0.1 ms a sequence; the largest batch was measured once, and slowly."""
    rows = [StepRow(batch, batch, None, 8.0 + 0.1 * batch, 100) for batch in range(2, 33, 2)]
    scattered = (*rows, StepRow(34, 34, None, 15.0, 1))
    steps = decode_steps(scattered, 64, 1.0)
    assert steps.batch_s[64, 0] == pytest.approx(15.0 / 1e3), "the trend has 14.4 there"
    assert decode_steps(tuple(rows), 64, 1.0).batch_s[64, 0] == pytest.approx(14.4 / 1e3)
    assert steps.batch_s[1, 0] == pytest.approx(8.1 / 1e3)


def test_the_line_of_a_prefill_table_passes_its_ends() -> None:
    step_s, token_s = prefill_line((StepRow(1, 500, None, 20.0), StepRow(1, 1500, None, 40.0)))
    assert (step_s, token_s) == (pytest.approx(0.010), pytest.approx(20e-6))


def roofline_table() -> tuple[tuple[StepRow, ...], tuple[StepRow, ...]]:
    """Return tables that hold the roofline's own steps of the reference configuration, at every batch."""
    spec, calibration = short_trial()
    prefill = prefill_worker(spec, calibration, 0.0)
    worker, decode = decode_worker(spec, calibration, 0.0)
    prefills = [
        StepRow(
            1,
            new,
            context,
            1e3 * (prefill.step_s + prefill.token_s * new + prefill.pair_s * new * (context + new / 2)),
        )
        for new in (32, 4096)
        for context in (0, 40_000)
    ]
    decodes = [
        StepRow(
            batch,
            batch,
            mean * batch,
            1e3 * float(decode.batch_s[batch, 0] + decode.token_s[batch, 0] * mean * batch),
        )
        for batch in range(1, worker.slots + 1)
        for mean in (1, 5_000, 40_000)
    ]
    return tuple(prefills), tuple(decodes)


def test_a_table_of_the_rooflines_steps_predicts_what_the_roofline_does() -> None:
    """Between two sizes a prefill table has lines, not the roofline's parabola: allow for 5 %."""
    spec, calibration = short_trial()
    prefills, decodes = roofline_table()
    tables = {"decode_steps": decodes, "decode_scale": 1.0}
    before = simulate_serving(spec, calibration)
    after = simulate_serving(spec, calibration.model_copy(update=tables))
    np.testing.assert_allclose(tpot_s(after), tpot_s(before), rtol=1e-6)
    np.testing.assert_allclose(ttft_s(after), ttft_s(before), rtol=1e-6)
    tables |= {"prefill_steps": prefills, "prefill_scale": 1.0}
    both = simulate_serving(spec, calibration.model_copy(update=tables))
    assert ttft_s(both).mean() == pytest.approx(ttft_s(before).mean(), rel=0.05)


def test_the_scale_multiplies_the_steps_of_a_table() -> None:
    spec, calibration = short_trial()
    tables = {"prefill_steps": PREFILL, "decode_steps": DECODE, "prefill_scale": 1.0, "decode_scale": 1.0}
    plain = calibration.model_copy(update=tables)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolatedSteps)
        single = simulate_serving(spec, plain)
        double = simulate_serving(spec, plain.model_copy(update={"decode_scale": 2.0}))
        slower = simulate_serving(spec, plain.model_copy(update={"prefill_scale": 2.0}))
    assert tpot_s(double).mean() > 1.5 * tpot_s(single).mean()
    assert ttft_s(slower).mean() > 1.5 * ttft_s(single).mean()


def test_steps_outside_a_table_are_said_once() -> None:
    spec, calibration = short_trial()
    rows = (StepRow(1, 1, 100, 8.25), StepRow(2, 2, 200, 8.5))
    tabled = calibration.model_copy(update={"decode_steps": rows})
    with pytest.warns(
        ExtrapolatedSteps, match=r"decode_steps: \d+\.\d% of the simulated decode steps"
    ) as said:
        digests = {digest(simulate_serving(spec, tabled)) for _ in range(2)}
    assert len(said) == 1
    assert len(digests) == 1


def test_tables_make_any_model_simulable() -> None:
    spec, calibration = short_trial("model.weight_dtype=bfloat16")
    assert [finding.path for finding in check_simulated(spec, calibration)] == ["model.weight_dtype"]
    prefills, decodes = roofline_table()
    half = calibration.model_copy(update={"prefill_steps": prefills, "prefill_scale": 1.0})
    assert [finding.path for finding in check_simulated(spec, half)] == ["model.weight_dtype"]
    tabled = half.model_copy(update={"decode_steps": decodes, "decode_scale": 1.0})
    assert not check_simulated(spec, tabled)
    assert (simulate_serving(spec, tabled).error == "").all()


def test_a_scale_of_measured_steps_is_pointed_out() -> None:
    spec, calibration = short_trial()
    (finding,) = check_simulated(spec, calibration.model_copy(update={"decode_steps": DECODE}))
    assert (finding.severity, finding.path) == ("warning", "cluster.calibration.decode_scale")


def test_a_run_on_gpus_is_predicted_as_documented() -> None:
    """Simulate the trial of tests/data/gpu with the table of its own steps (docs/notes/step-tables.md)."""
    table = Path(__file__).parents[2] / "examples" / "mine" / "steps" / "h200_x2.csv"
    settings = vllm_settings(
        "cluster=sim",
        "load.dataset.outputs.tokens=128",
        *("load.concatenate_permutation=false", "load.min_queries=470", "load.min_duration_s=20.0"),
        "load.target_qps=15.0",
        *(f"cluster.calibration.{phase}_steps={table}" for phase in ("prefill", "decode")),
        *(f"cluster.calibration.{phase}_scale=1.0" for phase in ("prefill", "decode")),
    )
    assert settings.cluster.calibration
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolatedSteps)
        log = simulate_serving(settings.trial_spec, settings.cluster.calibration)
    ttft, tpot = ttft_s(log), tpot_s(log)
    predicted = (
        ttft.mean(),
        *np.percentile(ttft, [50, 99]),
        1e3 * tpot.mean(),
        1e3 * np.percentile(tpot, 99),
    )
    assert predicted == pytest.approx((0.164, 0.156, 0.236, 7.96, 8.03), rel=0.005)
