"""Test that the best configurations of a study are measured again on the simulated rack."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import rmtree

import pytest
from support.composed import composed
from support.confirmations import (
    AGAIN,
    FIXED,
    NAME,
    chosen,
    confirm,
    held_kind,
    predicted_kind,
    wrapped,
)
from support.studies import CountingSimulator, FailingBackend, reproducible_fields
from support.synthetic_posterior import posterior_of

from tune.backends.base import AttemptState
from tune.cli.trial_export import recorded_trial
from tune.config import compose_overrides
from tune.errors import ResumableError
from tune.records.confirmation import Confirmation, repeats_root, write_confirmation
from tune.records.folders import StudyFolder
from tune.records.posterior_summary import write_posterior
from tune.report.recommended import recommended_configuration
from tune.spec.kind import kind_of
from tune.spec.trial import TrialSpec
from tune.study.confirm_winners import remaining_gpu_hours


class FailsOnce(FailingBackend):
    """Fail the first attempt."""

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        if self.submitted:
            return CountingSimulator.submit(self, spec, attempt)
        self.lost = super().submit(spec, attempt)
        return self.lost

    def poll(self, handle: str) -> AttemptState:
        return super().poll(handle) if handle == self.lost else CountingSimulator.poll(self, handle)


@pytest.mark.slow
def test_a_kind_that_the_study_did_not_measure_is_confirmed_and_recommended(runs: Path) -> None:
    study = StudyFolder(runs / NAME)
    best, *_, worst = (one.trial for one in chosen(runs, "confirm.configurations=9"))
    spec = study.trial(best.trial_id).read_spec()
    assert spec
    for trial in study.trials():
        if trial.root.name != worst.trial_id:
            rmtree(trial.root)
    other = predicted_kind(runs, 100.0, spec.split.prefill_workers)
    write_posterior(runs / NAME, posterior_of(kinds=(other, held_kind(runs, worst, 97.0))))
    outcomes, found = confirm(runs)
    assert len(outcomes) == 4
    found = Confirmation.model_validate_json(found.model_dump_json(by_alias=True))
    first, second = found.configurations
    assert (first.trial_id, first.number, second.trial_id) == (other.trial_id, None, worst.trial_id)
    assert first.predicted
    assert first.predicted.expected_output_tps_per_gpu.median == 100.0
    assert second.loss
    assert second.loss.low_frac > 0
    record = study.read_study()
    assert record
    recommended = recommended_configuration(record, study.outcomes(), [worst.trial_id], found)
    assert recommended
    assert recommended.label == other.kind
    again = composed(*(recommended.overrides or ())).trial_spec
    assert (kind_of(again), again.load.shuffle_seed) == (other.kind, spec.load.shuffle_seed)
    assert (again.load.mode, again.load.target_qps) == ("fixed", first.guaranteed_qps)
    write_confirmation(repeats_root(study.root), found)
    words = ("action=export", "export.to=sbatch", f"study.name={NAME}", f"runs_dir={runs}")
    exported = recorded_trial(compose_overrides(words))
    assert (exported.spec, exported.rate_qps) == (again, first.guaranteed_qps)


@pytest.mark.slow
def test_failures_in_a_row_end_the_confirmation(runs: Path) -> None:
    backend = wrapped(FailingBackend)
    with pytest.raises(ResumableError, match="2 consecutive repeats failed"):
        confirm(runs, backend=backend)
    assert backend.submitted == 2


@pytest.mark.slow
def test_confirmation_stays_within_its_budget(runs: Path) -> None:
    backend = wrapped()
    with pytest.raises(ResumableError, match=r"budget of 0\.5 GPU-hours"):
        confirm(runs, "study.max_gpu_hours=0.5", backend=backend)
    assert backend.submitted == 0


@pytest.mark.slow
def test_only_a_lost_repeat_is_measured_again(runs: Path) -> None:
    outcomes, found = confirm(runs)
    assert [outcome.source for outcome in outcomes] == ["confirm"] * 4
    assert [outcome.provenance["params"]["shuffle_seed"] for outcome in outcomes] == [100, 100, 200, 200]
    assert not list(runs.glob("*/*/raw/*/early_stop.json"))
    assert found.degrees_of_freedom == 2
    first, second = found.configurations
    for one in (first, second):
        assert one.guaranteed_qps
        assert one.capacity_qps
        assert 0.5 * one.capacity_qps.mean < one.guaranteed_qps < one.capacity_qps.mean
    assert first.overrides[-2:] == (f"load.target_qps={first.guaranteed_qps!r}", "load.mode=fixed")
    again = composed(*first.overrides).trial_spec
    spec = StudyFolder(runs / NAME).trial(first.trial_id).read_spec()
    assert first.guaranteed_qps
    assert again == spec.model_copy(update={"load": spec.load.at(first.guaranteed_qps)})  # type: ignore[union-attr]

    repeats = StudyFolder(runs / f"{NAME}.confirm")
    (repeats.trial(outcomes[2].trial_id).root / "outcome.json").unlink()
    for attempt in repeats.trial(outcomes[2].trial_id).attempts():
        (attempt / "attempt.json").unlink()
    backend = wrapped()
    resumed, same = confirm(runs, backend=backend)
    assert backend.submitted == 1
    assert json.loads(same.model_dump_json())["configurations"] == [
        json.loads(one.model_dump_json()) for one in found.configurations
    ]
    assert reproducible_fields(resumed) == reproducible_fields(outcomes)


@pytest.mark.slow
def test_interrupted_confirmation_resumes_and_takes_more_repeats(runs: Path) -> None:
    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        confirm(runs, backend=CountingSimulator(compose_overrides(FIXED), interrupt))
    picked = chosen(runs, *AGAIN)
    repeats = StudyFolder(runs / f"{NAME}.confirm")
    number, gpu_hours = remaining_gpu_hours(repeats, picked, rerun=False)
    assert number == 2
    assert gpu_hours == pytest.approx(sum(one.gpu_hours for one in picked))
    backend = wrapped()
    _, two = confirm(runs, backend=backend)
    assert backend.submitted == 2
    backend = wrapped()
    _, three = confirm(runs, "confirm.repeats=3", backend=backend)
    assert backend.submitted == 2
    assert (two.degrees_of_freedom, three.degrees_of_freedom) == (2, 4)
    assert three.gpu_hours > two.gpu_hours


@pytest.mark.slow
def test_failed_repeat_is_reported_and_tried_again(runs: Path) -> None:
    with pytest.raises(ResumableError, match="1 of 2 repeats failed, the last of them: node gb07 is down"):
        confirm(runs, "confirm.configurations=1", backend=wrapped(FailsOnce))
    backend = wrapped()
    _, found = confirm(runs, "confirm.configurations=1", backend=backend)
    assert backend.submitted == 1
    assert found.configurations[0].guaranteed_qps
