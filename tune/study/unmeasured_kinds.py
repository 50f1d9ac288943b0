"""Find kinds of configurations that a study predicted, did not measure, and cannot tell from its best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tune.analysis.model_error_sources import covered_frac
from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval, KindPosterior, PosteriorSummary
from tune.records.study_record import StudyRecord
from tune.spec.bind import bind_point
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
    study: StudyRecord, posterior: PosteriorSummary | None, best: Outcome, held: Sequence[str]
) -> list[UnmeasuredKind]:
    """Return the kinds whose 90 % interval reaches that of the best measured kind, the best first.

    On a simulated rack the interval of the best kind is wider by the simulator's own error.

    Parameters
    ----------
    study
        Record of the study.
    posterior
        What its search learned, None for a search that does not learn.
    best
        The best trial.
    held
        Kinds of which a measured configuration held its SLO, that of `best` first.

    Returns
    -------
    list[UnmeasuredKind]
        Empty where the record states no points of the kinds.
    """
    kinds = posterior.kinds if posterior else ()
    reference = next((kind for kind in kinds if kind.kind == held[0]), next(iter(kinds), None))
    if reference is None:
        return []
    error_frac = covered_frac(best.model_error.sd_frac) if best.model_error else 0.0
    enough = reference.expected_output_tps_per_gpu.low * (1 - error_frac)
    near = [
        kind
        for kind in kinds
        if kind.kind not in held and not kind.is_measured and kind.expected_output_tps_per_gpu.high >= enough
    ]
    specs = [_spec(study, kind) for kind in near]
    return [UnmeasuredKind(kind, spec) for kind, spec in zip(near, specs, strict=True) if spec]


def _spec(study: StudyRecord, kind: KindPosterior) -> TrialSpec | None:
    """Return the trial of the best candidate of `kind`.

    Returns None where its point is not on record, or is another trial since the sweep was corrected.
    """
    base, sweep, point = study.base_spec, study.sweep, kind.params
    if base is None or sweep is None or point is None or not point.keys() <= sweep.space.keys():
        return None
    varied = sweep.model_copy(update={"space": {name: sweep.space[name] for name in point}})
    spec = bind_point(base, varied, point)
    return spec if spec.trial_id == kind.trial_id else None
