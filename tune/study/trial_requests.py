"""Turn proposals into trial requests: bind the point, decide when to stop early, and note the provenance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from tune.records.capacity_search import EarlyStopThreshold
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.spec.bind import Point, bind_point, locate_point
from tune.spec.kind import parallelism_of
from tune.spec.settings import Settings
from tune.spec.space import Sweep, Value
from tune.spec.trial import TrialSpec
from tune.study.proposer import SearchEnd
from tune.study.registry import SearchProblem, make_proposer
from tune.study.search_space import number_of_points
from tune.study.trial_runner import TrialRequest
from tune.workload.length_summary import describe_workload

SELECTION_BIAS_FRAC = 0.01
"""Share by which the best measured rate is lowered before others are compared with it, because the highest
of several measurements is biased upwards. Chosen on the development racks of
benchmarks/search_synthetic_racks.py; half the noise of a measurement."""

MIN_FOLLOWING_TRIALS = 3
"""Number of trials that must be able to follow before a deployment is stopped early for a predicted
competitor. Chosen here: if the prediction disappoints, another trial can still correct it."""

Overrides = Callable[[TrialSpec], Sequence[str]]
"""Return the Hydra overrides that compose a trial."""


class TrialRequests:
    """Turn the proposals of one study into trial requests: those on record first, then new suggestions."""

    def __init__(
        self,
        folder: StudyFolder,
        settings: Settings,
        sweep: Sweep,
        study: StudyRecord,
        overrides: Overrides,
        *,
        prepared: Callable[[int, int], None],
    ) -> None:
        self.proposer = make_proposer(
            SearchProblem(
                study.space, study.search, study.seed, settings=settings, sweep=sweep, prepared=prepared
            )
        )
        self._folder = folder
        self._base = settings.trial_spec
        self._sweep = sweep
        self._study = study
        self._overrides = overrides
        self._known = {proposal.number: proposal for proposal in folder.read_proposals()}
        self._next = max((p.number + 1 for p in folder.read_proposals(with_aside=True)), default=0)
        self._points = number_of_points(sweep.space)
        self._proposed: set[tuple[tuple[str, Value], ...]] = set()
        self.ended: SearchEnd | None = None

    def numbers(self, n_trials: int) -> list[int]:
        """Return the numbers of `n_trials` trials: those on record that are not left aside, then new ones."""
        known = sorted(self._known)[:n_trials]
        return [*known, *range(self._next, self._next + n_trials - len(known))]

    def requests(
        self, numbers: Iterable[int], earlier: Sequence[Outcome], following: int
    ) -> Iterator[TrialRequest]:
        """Yield the requests of one batch, each suggested when it is taken; fewer than `numbers` at the end.

        `earlier` holds the outcomes of earlier batches: a trial is stopped early when it clearly stays below
        the best of them, or below a predicted competitor where at least MIN_FOLLOWING_TRIALS trials are
        `following`.
        """
        best = max((o.target_qps / o.gpus for o in earlier if o.feasible and o.target_qps), default=None)
        for number in numbers:
            proposal = self._recall(number) if number in self._known else self._suggest(number)
            if proposal:
                request = trial_request(proposal, self._bind(proposal.params), self._overrides, self._study)
                if best and self._study.search.early_stop and request.spec.load.mode == "capacity":
                    competitor_qps = (
                        proposal.early_stop_below_qps if following >= MIN_FOLLOWING_TRIALS else 0.0
                    )
                    threshold = _early_stop_threshold(best, competitor_qps, request.spec)
                    request = replace(request, early_stop=threshold)
                yield request

    def _recall(self, number: int) -> Proposal:
        """Return proposal `number` from the record and enter it in the proposer."""
        proposal = self._known[number]
        if proposal.params:
            self.proposer.add_trial(number, proposal.params, proposal.source)
            self._note(proposal.params)
        return proposal

    def _note(self, point: Point) -> None:
        """Count a point of the space as proposed; the baseline need not be one."""
        if point:
            self._proposed.add(tuple(sorted(point.items())))

    def _suggest(self, number: int) -> Proposal | None:
        """Return a new proposal, put on record; None where the proposer has none."""
        if number == 0 and self._study.baseline:
            proposal = self._baseline()
        else:
            all_known = len(self._proposed) == self._points
            suggestion = SearchEnd("points") if all_known else self.proposer.suggest(number)
            if isinstance(suggestion, SearchEnd):
                self.ended = suggestion
                return None
            proposal = Proposal(
                number=number,
                params=dict(suggestion.point),
                source=self._study.search.name or "",
                trial_id=self._bind(suggestion.point).trial_id,
                expected_capacity_qps=suggestion.expected_capacity_qps,
                early_stop_below_qps=suggestion.early_stop_below_qps,
            )
        self._folder.append_proposal(proposal)
        self._note(proposal.params)
        return proposal

    def _baseline(self) -> Proposal:
        """Return the configuration as composed, which need not be a point of the sweep."""
        point = locate_point(self._base, self._sweep) or {}
        if point:
            self.proposer.add_trial(0, point, "baseline")
        trial_id = self._bind(point).trial_id
        return Proposal(
            number=0,
            params=dict(point),
            source="baseline",
            trial_id=trial_id,
            expected_capacity_qps=self.proposer.baseline_capacity_qps(trial_id),
        )

    def _bind(self, point: Point) -> TrialSpec:
        """Return the trial that a point stands for; the configuration as composed for an empty one."""
        return bind_point(self._base, self._sweep, point) if point else self._base.with_own_pools()


def _early_stop_threshold(
    best_qps_per_gpu: float, competitor_qps: float, spec: TrialSpec
) -> EarlyStopThreshold:
    """Return the rate, queries/s, below which a deployment of `spec` is stopped early.

    Take the best verified rate minus SELECTION_BIAS_FRAC, capped so that the first probe, `load.resolution`
    above the threshold, is not below the best rate. If the predicted rate of a competitor is higher, take
    that, clipped to the rates that the load allows.
    """
    largest_frac = spec.load.resolution / (1 + spec.load.resolution)
    best_qps = best_qps_per_gpu * spec.hardware.gpus * (1 - min(SELECTION_BIAS_FRAC, largest_frac))
    predicted_qps = min(competitor_qps, spec.load.within(competitor_qps))
    return EarlyStopThreshold(early_stop_qps=max(best_qps, predicted_qps), expected=predicted_qps > best_qps)


def trial_request(
    proposal: Proposal, spec: TrialSpec, overrides: Overrides, study: StudyRecord
) -> TrialRequest:
    """Return the request to run `spec` as trial `proposal.number`, with its provenance."""
    provenance = {
        "params": dict(proposal.params),
        "overrides": list(overrides(spec)),
        "split": spec.split.label,
        "parallelism": parallelism_of(spec),
        "workload": describe_workload(spec.load),
        "backend": study.backend,
        "calibration": study.cluster_hash,
        "versions": study.versions,
    }
    return TrialRequest(proposal.number, proposal.source, spec, provenance)
