"""Bind the trials of kinds that a study predicted and did not measure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval, KindPosterior, PosteriorSummary
from tune.records.study_record import StudyRecord
from tune.spec.trial import TrialSpec
from tune.study.trial_requests import Overrides


@dataclass(frozen=True)
class UnmeasuredKind:
    """Hold the best candidate of a kind that the study did not measure: what is expected of it, its trial."""

    posterior: KindPosterior
    spec: TrialSpec

    @property
    def expected_output_tps_per_gpu(self) -> Interval:
        """Return output tokens/s per GPU at the capacity, with a 90 % interval."""
        return self.posterior.expected_output_tps_per_gpu

    def as_trial(self, repeat: Outcome, overrides: Overrides) -> Outcome:
        """Return the outcome of a repeat as that of the candidate, with its id, point and overrides."""
        own = {"params": dict(self.posterior.params or {}), "overrides": list(overrides(self.spec))}
        return repeat.model_copy(
            update={"trial_id": self.posterior.trial_id, "provenance": repeat.provenance | own}
        )


def unmeasured_kinds(
    study: StudyRecord, posterior: PosteriorSummary | None, names: Collection[str]
) -> dict[str, UnmeasuredKind]:
    """Return the kinds `names` with the trials of their best candidates, by name.

    A kind whose trial cannot be bound is left out.
    """
    kinds = [kind for kind in (posterior.kinds if posterior else ()) if kind.kind in names]
    specs = {kind.kind: study.compose_trial(kind.trial_id, kind.params) for kind in kinds}
    return {kind.kind: UnmeasuredKind(kind, spec) for kind in kinds if (spec := specs[kind.kind])}
