"""List the search methods that `search=` names, and build their proposers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tune.spec.bind import bind_point
from tune.spec.settings import Settings
from tune.spec.space import Dimension, Search, Sweep
from tune.study.proposer import Proposer, TrialSuggestion

# Each search method is imported where it is built: a single trial reads this table and searches nothing.


@dataclass(frozen=True)
class SearchProblem:
    """Describe the task of a search.

    `space` and `search` are those that study.json pins; seed, settings and sweep are as composed.
    `prepared` is called with the number of prefill pools that a proposer has simulated, and of all.
    """

    space: Mapping[str, Dimension]
    search: Search
    seed: int
    settings: Settings
    sweep: Sweep
    prepared: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True)
class SearchMethod:
    """Hold how the proposer of one search method is built and checked.

    `check` raises ConfigurationError where the method cannot search the space; it takes less time than
    `build`. `has_posterior`: the proposer keeps a posterior that goes on record.
    """

    build: Callable[[SearchProblem], Proposer]
    check: Callable[[SearchProblem], None]
    has_posterior: bool = False


def make_proposer(problem: SearchProblem) -> Proposer:
    """Return the proposer of the study's search method, without any observation.

    Raises ConfigurationError where the method cannot search the space, or a package that it needs is missing.
    """
    return SEARCH_METHODS[problem.search.name or ""].build(problem)


def check_search(problem: SearchProblem) -> None:
    """Raise ConfigurationError when the search cannot cover the space, or its first point fits no trial."""
    SEARCH_METHODS[problem.search.name or ""].check(problem)


def _build_optuna(problem: SearchProblem) -> Proposer:
    """Return a proposer that wraps one of Optuna's samplers."""
    from tune.study.optuna_proposer import OptunaProposer  # noqa: PLC0415

    return OptunaProposer(problem.space, problem.search, problem.seed)


def _build_grid(problem: SearchProblem) -> Proposer:
    """Return a proposer that walks the grid."""
    from tune.study.grid_proposer import GridProposer  # noqa: PLC0415

    return GridProposer(problem.space)


def _build_surrogate(problem: SearchProblem) -> Proposer:
    """Return a proposer with a surrogate of all candidates of the sweep."""
    from tune.study.candidate_space import CandidateSpace  # noqa: PLC0415
    from tune.study.candidates import candidates  # noqa: PLC0415
    from tune.study.surrogate_proposer import SurrogateProposer  # noqa: PLC0415

    calibration = problem.settings.cluster.calibration
    assert calibration is not None, "search=surrogate is refused without one"
    base = problem.settings.trial_spec
    first = candidates(base, problem.sweep, problem.seed)
    return SurrogateProposer(
        problem.space,
        first,
        CandidateSpace(base, problem.sweep, first, problem.seed),
        calibration,
        problem.seed,
        min_gain=problem.settings.study.min_gain,
        progress=problem.prepared,
    )


def _check_first_point(problem: SearchProblem) -> None:
    """Build the proposer, and bind its first point to a trial."""
    suggestion = make_proposer(problem).suggest(0)
    if isinstance(suggestion, TrialSuggestion):
        bind_point(problem.settings.trial_spec, problem.sweep, suggestion.point)


def _check_candidates(problem: SearchProblem) -> None:
    """List the candidates, without a surrogate of them."""
    from tune.study.candidates import candidates  # noqa: PLC0415

    candidates(problem.settings.trial_spec, problem.sweep, problem.seed)


_OPTUNA = SearchMethod(_build_optuna, _check_first_point)

SEARCH_METHODS: Mapping[str, SearchMethod] = {
    "tpe": _OPTUNA,
    "random": _OPTUNA,
    "gp": _OPTUNA,
    "grid": SearchMethod(_build_grid, _check_first_point),
    "surrogate": SearchMethod(_build_surrogate, _check_candidates, has_posterior=True),
}
"""Search methods by their name in `search.name`."""
