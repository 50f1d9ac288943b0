"""The ask/tell loop: fixed batches of proposals, run, recorded and told in number order."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tune.backends.base import Backend
from tune.core.files import write_error
from tune.errors import ConfigurationError, ResumableError
from tune.records.capacity_search import EarlyStopThreshold
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.posterior_summary import write_posterior
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.spec.bind import Point, bind_point, locate_point
from tune.spec.settings import Settings
from tune.spec.space import Sweep
from tune.spec.trial import TrialSpec
from tune.study.budget import check_budget, remaining_trials
from tune.study.candidates import candidates
from tune.study.identity import merge_on_resume
from tune.study.optuna_proposer import OptunaProposer
from tune.study.surrogate_sampler import SurrogateSampler
from tune.study.trial_runner import TrialRequest, TrialRunner
from tune.surrogate.modelled_limits import require_modelled

MAX_FAILED_IN_A_ROW = 2
"""One trial may meet a node that dies; the next one meets what is broken for all."""

LUCK_FRAC = 0.01
"""The highest of several measured rates owes some of its height to luck: so much less is to be beaten. Our
choice, by the development racks of benchmarks/hidden_racks.py; half of a measurement's noise."""

MIN_FOLLOWING_TRIALS = 3
"""A deployment is given up for what others should come to only where so many trials may follow. Our choice:
what then disappoints is not the last word."""

Overrides = Callable[[TrialSpec], Sequence[str]]
Recorded = Callable[[Outcome], None]


@contextmanager
def open_study(root: Path, asked: StudyRecord) -> Iterator[StudyFolder]:
    """The folder of the study `asked`, held by this process alone and pinned to its question.

    Raises ConfigurationError when the folder cannot be written, another process runs the study, or the study on
    record asks something else; ResumableError when study.json is damaged.
    """
    folder = StudyFolder(root)
    with _held(root):
        recorded = folder.read_study()
        record = merge_on_resume(recorded, asked) if recorded else asked
        if record != recorded:
            folder.write_study(record)
        yield folder


@contextmanager
def _held(root: Path) -> Iterator[None]:
    path = root / ".lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise write_error(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"{root}: another process is running this study; expected to be the only one. Wait for it, "
                "or give this study a name of its own (study.name=NAME)."
            ) from None
        except OSError as error:
            raise _lockless(path, error) from error
        yield


def is_locked(root: Path) -> bool:
    """Whether a process runs the study in the folder `root`. Raises ConfigurationError where locks do not work."""
    try:
        with (root / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _lockless(root / ".lock", error) from error
    return False


def _lockless(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: cannot be locked ({error.strerror or error}); expected a file system with flock(2), by "
        "which a study is run by one process alone. Have it mounted with locks (Lustre: -o flock; NFS: with "
        "its lock service), or name a folder elsewhere with runs_dir=..."
    )


def require_search(settings: Settings) -> None:
    """Raises ConfigurationError when the search cannot walk the space or a point of it fits no trial."""
    assert settings.sweep is not None
    if settings.search.name == "surrogate":
        require_modelled(settings.slo)
        candidates(settings.trial_spec, settings.sweep, settings.study.seed)
        return
    point = OptunaProposer(settings.sweep.space, settings.search, settings.study.seed).propose(0)
    if point:
        bind_point(settings.trial_spec, settings.sweep, point)


def run_trial(
    folder: StudyFolder,
    settings: Settings,
    backend: Backend,
    overrides: Overrides,
) -> tuple[Outcome, bool]:
    """Measure the configuration as composed; the flag is False when its outcome was already on record."""
    spec = settings.trial_spec
    batch = TrialRunner(folder, settings.cluster, backend, settings.study.once)
    known = {proposal.trial_id: proposal for proposal in folder.read_proposals()}
    proposal = known.get(spec.trial_id) or Proposal(
        number=len(known), params={}, source="command", trial_id=spec.trial_id
    )
    if spec.trial_id not in known:
        folder.append_proposal(proposal)
    study = folder.read_study()
    assert study is not None
    outcome = batch.run([trial_request(proposal, spec, overrides, study)], settings.rerun)[proposal.number]
    folder.write_study(study.model_copy(update={"n_trials": len(folder.read_proposals())}))
    return outcome, outcome.trial_id in batch.recorded


def run_study(
    folder: StudyFolder,
    settings: Settings,
    backend: Backend,
    overrides: Overrides,
    recorded: Recorded,
    *,
    prepared: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Run the study to its last trial, from wherever it stands; outcomes by number.

    `prepared` hears of each prefill pool that a search which learns the rack has simulated before it begins.
    `recorded` hears of every trial, also of those on record, in the order in which they are told. Raises
    ResumableError when the GPU-hours would go beyond the budget, when MAX_FAILED_IN_A_ROW trials fail in whole batches,
    or the last of all does.
    """
    study, sweep = folder.read_study(), settings.sweep
    assert study is not None
    assert sweep is not None
    loop = _Loop(folder, settings, sweep, study, overrides, prepared=prepared)
    batch = TrialRunner(folder, settings.cluster, backend, settings.study.once)
    outcomes: dict[int, Outcome] = {}
    failed = 0
    n_trials = settings.study.n_trials or study.n_trials
    for start in range(0, n_trials, study.parallel):
        numbers, so_far = range(start, min(start + study.parallel, n_trials)), list(outcomes.values())
        jobs = loop.jobs(numbers, so_far, remaining_trials(numbers, n_trials, study.max_gpu_hours, so_far))
        if study.max_gpu_hours is not None:
            jobs = check_budget(study.max_gpu_hours, list(jobs), so_far, settings)
        done = batch.run(jobs, settings.rerun)
        if not done:
            break
        for number in sorted(done):
            loop.ledger.tell(number, done[number])
            recorded(done[number])
        outcomes |= done
        belief = loop.ledger.belief({number: outcome.trial_id for number, outcome in outcomes.items()})
        if belief:
            write_posterior(folder.root, belief)
        all_failed = all(outcome.status == "failed" for outcome in done.values())
        failed = failed + len(done) if all_failed else 0
        if failed >= MAX_FAILED_IN_A_ROW or (failed and max(done) == n_trials - 1):
            raise ResumableError(
                f"{failed} trials in a row failed; something may be broken that another one would meet too: "
                f"{done[max(done)].reason}\nMend it and run the same command again."
            )
    return [outcomes[number] for number in sorted(outcomes)]


class _Loop:
    """Proposals of one study, those on record first, and the ledger they are entered in."""

    def __init__(
        self,
        folder: StudyFolder,
        settings: Settings,
        sweep: Sweep,
        study: StudyRecord,
        overrides: Overrides,
        *,
        prepared: Callable[[], None],
    ) -> None:
        learner = _learner(settings, sweep, study, prepared) if study.search.name == "surrogate" else None
        self.ledger = OptunaProposer(study.space, study.search, study.seed, learner, settings.study.min_gain)
        self._folder = folder
        self._base = settings.trial_spec
        self._sweep = sweep
        self._study = study
        self._overrides = overrides
        self._known = {proposal.number: proposal for proposal in folder.read_proposals()}

    def jobs(self, numbers: Iterable[int], done: Sequence[Outcome], following: int) -> Iterable[TrialRequest]:
        """The jobs of one batch, each proposed as it is taken; fewer than asked when a grid is exhausted.

        `done`: the outcomes of earlier batches, of which the best is to be beaten, and what others should
        come to, as long as at least MIN_FOLLOWING_TRIALS trials are `following` that may show it.
        """
        best = max((o.target_qps / o.gpus for o in done if o.feasible), default=None)
        for number in numbers:
            proposal = self._recall(number) if number in self._known else self._propose(number)
            if proposal:
                job = trial_request(proposal, self._bind(proposal.params), self._overrides, self._study)
                if best and self._study.search.early_stop and job.spec.load.mode == "capacity":
                    outdone_qps = proposal.early_stop_below_qps if following >= MIN_FOLLOWING_TRIALS else 0.0
                    job = replace(job, goal=_goal(best, outdone_qps, job.spec))
                yield job

    def _recall(self, number: int) -> Proposal:
        proposal = self._known[number]
        if proposal.params:
            self.ledger.adopt(number, proposal.params, proposal.source)
        return proposal

    def _propose(self, number: int) -> Proposal | None:
        if number == 0 and self._study.baseline:
            proposal = self._incumbent()
        else:
            point = self.ledger.propose(number)
            if point is None:
                return None
            proposal = Proposal(
                number=number,
                params=dict(point),
                source=self._study.search.name or "",
                trial_id=self._bind(point).trial_id,
                expected_capacity_qps=self.ledger.expected_capacity_qps,
                early_stop_below_qps=self.ledger.early_stop_below_qps,
            )
        self._folder.append_proposal(proposal)
        return proposal

    def _incumbent(self) -> Proposal:
        """The configuration as composed, which need not be a point of the sweep."""
        point = locate_point(self._base, self._sweep) or {}
        if point:
            self.ledger.adopt(0, point, "baseline")
        trial_id = self._bind(point).trial_id
        expected_capacity_qps = self.ledger.expect(trial_id)
        return Proposal(
            number=0,
            params=dict(point),
            source="baseline",
            trial_id=trial_id,
            expected_capacity_qps=expected_capacity_qps,
        )

    def _bind(self, point: Point) -> TrialSpec:
        return bind_point(self._base, self._sweep, point) if point else self._base


def _learner(
    settings: Settings, sweep: Sweep, study: StudyRecord, prepared: Callable[[], None]
) -> SurrogateSampler:
    """Raises ConfigurationError where no configuration of the sweep can run."""
    calibration = settings.cluster.calibration
    assert calibration is not None, "search=surrogate is refused without one"
    found = candidates(settings.trial_spec, sweep, study.seed)
    return SurrogateSampler(study.space, found, calibration, study.seed, prepared)


def _goal(best_qps_per_gpu: float, early_stop_below_qps: float, spec: TrialSpec) -> EarlyStopThreshold:
    """Less than the best by LUCK_FRAC, but by no more than leaves the first probe, load.resolution above it,
    at the best; or what others should outdo, though no more than the load asks, if that is more."""
    most_frac = spec.load.resolution / (1 + spec.load.resolution)
    best_qps = best_qps_per_gpu * spec.hardware.gpus * (1 - min(LUCK_FRAC, most_frac))
    outdone_qps = min(early_stop_below_qps, spec.load.within(early_stop_below_qps))
    return EarlyStopThreshold(early_stop_qps=max(best_qps, outdone_qps), expected=outdone_qps > best_qps)


def trial_request(
    proposal: Proposal, spec: TrialSpec, overrides: Overrides, study: StudyRecord
) -> TrialRequest:
    """`spec` as the trial that `proposal` numbers, with what goes on record of its origin."""
    provenance = {
        "params": dict(proposal.params),
        "overrides": list(overrides(spec)),
        "split": spec.split.label,
        "backend": study.backend,
        "calibration": study.cluster_hash,
        "versions": study.versions,
    }
    return TrialRequest(proposal.number, proposal.source, spec, provenance)
