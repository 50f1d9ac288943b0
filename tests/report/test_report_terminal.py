"""Test outcomes and studies as lines for a terminal."""

from __future__ import annotations

import pytest
from support.synthetic_study import SLO, spread, study, synthetic_trial, unmeasured

from tune.records.model_error import ErrorSource, ModelError
from tune.records.outcome import CapacityQps
from tune.report.terminal import render_outcome, render_status
from tune.report.verdict_robustness import expected_of_repeat, verdict_notes


def lines(**changes: object) -> list[str]:
    return render_outcome(synthetic_trial(0, **changes), SLO, study()).splitlines()  # type: ignore[arg-type]


def test_run_near_its_limit_shows_shuffles_bottleneck_and_recommendations() -> None:
    text = lines(spread=spread(3, 4.4))
    assert text[6:] == [
        "verdict   holds its SLO in 3 of 5 shuffles",
        "shuffles  the verdict is uncertain: the SLO holds in 3 of 5 shuffles (orders of the dataset's "
        "lengths), in another one with probability 58 % (26 to 87 %)",
        "          p99 TTFT 4.40 s ± 0.300 s (sd), 4.10 s to 5.00 s",
        "          p99 TPOT 59.0 ms ± 1.00 ms (sd), 59.0 ms to 61.0 ms",
        "bottleneck: prefill",
        "          p99 TTFT uses 94 % of its limit",
        "          76 % of the slowest 2 % of first tokens is waiting for a prefill worker or sharing it "
        "with other prompts",
        "          prefill workers are busy 86 % of the time",
        "try       one more prefill worker, 15P3D: split.prefill_workers=15 split.decode_workers=3",
        "try       twice the GPUs a prefill worker, 7P4D: prefill.tensor_parallel_size=8 "
        "split.prefill_workers=7 split.decode_workers=4",
    ]


@pytest.mark.parametrize("held", [1, 2, 3, 4])
@pytest.mark.parametrize("feasible", [True, False])
def test_a_verdict_on_which_shuffles_differ_has_the_same_words_in_both_modes(
    held: int, feasible: bool
) -> None:
    reason = None if feasible else "the SLO holds in some shuffles; expected all of them"
    text = lines(spread=spread(held, 4.4), feasible=feasible, reason=reason)
    assert f"verdict   holds its SLO in {held} of 5 shuffles" in text
    (line,) = [line for line in text if line.startswith("shuffles")]
    assert line.startswith(f"shuffles  the verdict is uncertain: the SLO holds in {held} of 5 shuffles")
    assert line.endswith(" %)")


def test_a_limit_broken_in_every_shuffle_is_a_violation() -> None:
    reason = "p99 TTFT 4.6 s; expected at most 4.5 s"
    text = lines(ttft_p99_s=4.6, spread=spread(0, 4.6), reason=reason)
    assert f"verdict   SLO violated: {reason}" in text


@pytest.mark.parametrize(("held", "feasible"), [(4, True), (5, True), (2, False)])
def test_what_a_repeat_of_a_verified_rate_shows_is_said(held: int, feasible: bool) -> None:
    searched = CapacityQps(low=15.75, high=16.1, stopped_early=False, estimate=15.9)
    run = synthetic_trial(0, spread=spread(held, 4.2), feasible=feasible)
    found = run.model_copy(update={"capacity_qps": searched})
    expected = f"a full run at this rate holds in {held} of 5 shuffles"
    assert expected_of_repeat(found) == (expected if feasible else "")
    assert expected_of_repeat(run) == "", "a run at a fixed rate has said so as its verdict"


def test_verdict_that_every_shuffle_gives_is_certain() -> None:
    assert (
        "shuffles  the SLO holds in 5 of 5 shuffles (orders of the dataset's lengths), in another one with "
        "probability 92 % (69 to 100 %)"
    ) in lines(spread=spread(5, 3.9))


def test_run_without_shuffles_and_bottleneck_has_no_such_lines() -> None:
    text = lines(spread=None, bottleneck=None)
    assert text[-1] == "verdict   holds its SLO"
    failed = unmeasured(0, "failed", "gb07 went down")
    assert render_outcome(failed, SLO, study(backend="slurm")).splitlines()[1] == "failed    gb07 went down"


def test_status_shows_in_how_many_shuffles_the_best_holds() -> None:
    repeated, once = synthetic_trial(0, spread=spread(4, 4.2)), synthetic_trial(0, spread=None)
    assert render_status(study(), (), [repeated]).endswith(
        "p99 TTFT 4.22 s, SLO held in 4 of 5 shuffles: trial 0 (000000000000)"
    )
    assert render_status(study(), (), [once]).endswith("p99 TTFT 4.22 s: trial 0 (000000000000)")


def test_mock_engines_are_named_as_such() -> None:
    mocked = study(backend="local", stack="dynamo_v1_mocker", engine="dynamo_mocker")
    assert "mock engines on this machine" in render_outcome(synthetic_trial(0), SLO, mocked).splitlines()[0]
    assert "mock engines on this machine" in render_status(mocked, (), [synthetic_trial(0)])
    assert "mock" not in render_status(study(backend="local", stack="dynamo_v1"), (), [synthetic_trial(0)])
    on_slurm = study(backend="slurm", stack="dynamo_v1_mocker", engine="dynamo_mocker")
    assert "mock engines on Slurm" in render_outcome(synthetic_trial(0), SLO, on_slurm).splitlines()[0]
    assert "mock engines on Slurm" in render_status(on_slurm, (), [synthetic_trial(0)])


def test_simulated_run_states_the_simulators_own_error() -> None:
    source = ErrorSource(name="prefill scale", sd_frac=0.031, basis="")
    text = lines(model_error=ModelError(sources=(source,)))
    assert (
        "model     The simulator's own error: a real rack may hold 5.2 % more or less (90 % interval; "
        "standard deviations: prefill scale 3.1 %)."
    ) in text


@pytest.mark.parametrize(
    ("lasting_s", "ttft_p99_s", "noted"), [(1000.0, 4.2, False), (120.0, 4.2, True), (120.0, 800.0, False)]
)
def test_output_of_a_run_in_which_the_rack_was_filling_is_said_to_be_too_low(
    lasting_s: float, ttft_p99_s: float, noted: bool
) -> None:
    """A saturated rack works at its capacity however long its latencies are."""
    trial = synthetic_trial(0, ttft_p99_s=ttft_p99_s)
    median_s = trial.latency_s.p50 if trial.latency_s else 0.0
    probe = trial.probes[0].model_copy(update={"queries": int(lasting_s * 15.75), "full": True})
    text = render_outcome(trial.model_copy(update={"probes": (probe,)}), SLO, study())
    words = f"arrivals lasted {lasting_s:.0f} s, {lasting_s / median_s:.1f} median latencies: the rack was"
    assert (words in text) == noted
    assert ("load.min_duration_s=" in text) == noted
    notes = " ".join(verdict_notes([], trial.model_copy(update={"probes": (probe,)}), SLO, {}))
    assert ("Arrivals lasted" in notes) == noted
