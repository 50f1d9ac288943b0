from __future__ import annotations

from support.synthetic_study import SLO, measured, spread, study, unmeasured

from tune.report.terminal import render_outcome, render_status


def lines(**changes: object) -> list[str]:
    return render_outcome(measured(0, **changes), SLO, study()).splitlines()  # type: ignore[arg-type]


def test_a_run_near_its_limit_says_in_how_many_orders_it_holds_what_binds_and_what_to_try() -> None:
    text = lines(spread=spread(3, 4.4))
    assert text[6:] == [
        "verdict   holds its SLO",
        "orders    within its spread of breaking the SLO: the SLO holds in 3 of 5 orders of prompt lengths",
        "          p99 TTFT 4.40 s ± 0.300 s (sd), 4.10 s to 5.00 s",
        "          p99 TPOT 59.0 ms ± 1.00 ms (sd), 59.0 ms to 61.0 ms",
        "binds     prefill: p99 TTFT uses 94 % of its limit",
        "          76 % of the slowest 2 % of first tokens is waiting for a prefill worker or sharing it "
        "with other prompts",
        "          prefill workers are busy 86 % of the time",
        "try       one more prefill worker, 15P3D: split.prefill_workers=15 split.decode_workers=3",
        "try       more GPUs a prefill worker (prefill.tensor_parallel_size)",
    ]


def test_a_run_that_one_order_saved_from_holding_says_so() -> None:
    text = lines(ttft_p99_s=4.6, spread=spread(2, 4.6))
    assert "orders    within its spread of holding the SLO: the SLO holds in 2 of 5 orders" in "\n".join(text)


def test_a_run_that_every_order_confirms_has_no_doubt() -> None:
    assert "orders    the SLO holds in 5 of 5 orders of prompt lengths" in lines(spread=spread(5, 3.9))


def test_a_run_without_orders_and_binding_has_no_such_lines() -> None:
    text = lines(spread=None, binding=None)
    assert text[-1] == "verdict   holds its SLO"
    failed = unmeasured(0, "failed", "gb07 went down")
    assert render_outcome(failed, SLO, study(backend="slurm")).splitlines()[1] == "failed    gb07 went down"


def test_the_status_of_a_study_says_in_how_many_orders_its_best_holds() -> None:
    sure, once = measured(0, spread=spread(4, 4.2)), measured(0, spread=None)
    assert render_status(study(), (), [sure]).endswith(
        "p99 TTFT 4.22 s, SLO held in 4 of 5 orders: trial 0 (000000000000)"
    )
    assert render_status(study(), (), [once]).endswith("p99 TTFT 4.22 s: trial 0 (000000000000)")


def test_trials_of_mock_engines_are_never_said_to_have_run_on_their_hardware() -> None:
    mocked = study(backend="local", stack="dynamo_v1_mocker", engine="dynamo_mocker")
    assert "mock engines on this machine" in render_outcome(measured(0), SLO, mocked).splitlines()[0]
    assert "mock engines on this machine" in render_status(mocked, (), [measured(0)])
    assert "mock" not in render_status(study(backend="local", stack="dynamo_v1"), (), [measured(0)])
    on_slurm = study(backend="slurm", stack="dynamo_v1_mocker", engine="dynamo_mocker")
    assert "mock engines on Slurm" in render_outcome(measured(0), SLO, on_slurm).splitlines()[0]
    assert "mock engines on Slurm" in render_status(on_slurm, (), [measured(0)])
