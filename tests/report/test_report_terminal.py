"""Outcomes and studies as lines for a terminal."""

from __future__ import annotations

from support.synthetic_study import SLO, measured, spread, study, unmeasured

from tune.records.model_error import ErrorSource, ModelError
from tune.report.terminal import render_outcome, render_status


def lines(**changes: object) -> list[str]:
    return render_outcome(measured(0, **changes), SLO, study()).splitlines()  # type: ignore[arg-type]


def test_run_near_its_limit_shows_shuffles_bottleneck_and_recommendations() -> None:
    text = lines(spread=spread(3, 4.4))
    assert text[6:] == [
        "verdict   holds its SLO",
        "shuffles  the verdict is uncertain: the SLO holds in 3 of 5 shuffles (orders of the dataset's "
        "lengths), in another one with probability 58 % (26 to 87 %), and a violation lies within their "
        "spread",
        "          p99 TTFT 4.40 s ± 0.300 s (sd), 4.10 s to 5.00 s",
        "          p99 TPOT 59.0 ms ± 1.00 ms (sd), 59.0 ms to 61.0 ms",
        "bottleneck: prefill",
        "          p99 TTFT uses 94 % of its limit",
        "          76 % of the slowest 2 % of first tokens is waiting for a prefill worker or sharing it "
        "with other prompts",
        "          prefill workers are busy 86 % of the time",
        "try       one more prefill worker, 15P3D: split.prefill_workers=15 split.decode_workers=3",
        "try       more GPUs a prefill worker (prefill.tensor_parallel_size)",
    ]


def test_violation_that_a_shuffle_contradicts_is_uncertain() -> None:
    text = lines(ttft_p99_s=4.6, spread=spread(2, 4.6))
    (line,) = [line for line in text if line.startswith("shuffles")]
    assert line.startswith("shuffles  the verdict is uncertain: the SLO holds in 2 of 5 shuffles")
    assert line.endswith("and a pass lies within their spread")


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
    repeated, once = measured(0, spread=spread(4, 4.2)), measured(0, spread=None)
    assert render_status(study(), (), [repeated]).endswith(
        "p99 TTFT 4.22 s, SLO held in 4 of 5 shuffles: trial 0 (000000000000)"
    )
    assert render_status(study(), (), [once]).endswith("p99 TTFT 4.22 s: trial 0 (000000000000)")


def test_mock_engines_are_named_as_such() -> None:
    mocked = study(backend="local", stack="dynamo_v1_mocker", engine="dynamo_mocker")
    assert "mock engines on this machine" in render_outcome(measured(0), SLO, mocked).splitlines()[0]
    assert "mock engines on this machine" in render_status(mocked, (), [measured(0)])
    assert "mock" not in render_status(study(backend="local", stack="dynamo_v1"), (), [measured(0)])
    on_slurm = study(backend="slurm", stack="dynamo_v1_mocker", engine="dynamo_mocker")
    assert "mock engines on Slurm" in render_outcome(measured(0), SLO, on_slurm).splitlines()[0]
    assert "mock engines on Slurm" in render_status(on_slurm, (), [measured(0)])


def test_simulated_run_states_the_simulators_own_error() -> None:
    source = ErrorSource(name="prefill scale", sd_frac=0.031, basis="")
    text = lines(model_error=ModelError(sources=(source,)))
    assert (
        "model     The simulator's own error: a real rack may hold 5.2 % more or less (90 % interval; "
        "standard deviations: prefill scale 3.1 %)."
    ) in text
