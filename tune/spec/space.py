"""Hold a sweep, its search space and how it is searched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from tune.errors import ConfigurationError
from tune.spec.base import (
    LARGEST_INT,
    Count,
    FrozenModel,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from tune.spec.split import Role

Scalar = str | Annotated[int, Field(ge=-LARGEST_INT, le=LARGEST_INT)] | float | bool | None
Value = Scalar | tuple[Scalar, ...]
"""Value of a dimension: a setting may be null or a list. A list is a tuple here, as points are compared."""

MOST_VALUES = 100_000
"""Most values of a dimension with steps, which are listed."""

GraphFamily = Literal["listed", "powers_of_two", "steps_of_32", "none"]

Dim = TypeVar("Dim")


def _checked_range(dimension: Dim, low: float, high: float, step: float | None) -> Dim:
    if low > high:
        raise ValueError(f"the range is empty: low {low} is above high {high}")
    if step and (high - low) / step > MOST_VALUES:
        raise ValueError(
            f"{(high - low) / step:.3g} values from low {low} to high {high}; at most {MOST_VALUES}. "
            "Use a larger step or a smaller range"
        )
    return dimension


def _distinct(values: tuple[Dim, ...]) -> tuple[Dim, ...]:
    if len(set(values)) < len(values):
        raise ValueError("each value may stand once")
    return values


class IntDimension(FrozenModel):
    """Vary a setting over whole numbers from `low` to `high` in steps of `step`."""

    kind: Literal["int"]
    path: str
    low: Annotated[int, Field(ge=-LARGEST_INT, le=LARGEST_INT)]
    high: Annotated[int, Field(ge=-LARGEST_INT, le=LARGEST_INT)]
    step: PositiveInt = 1

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        return _checked_range(self, self.low, self.high, self.step)


class FloatDimension(FrozenModel):
    """Vary a setting over numbers from `low` to `high`.

    With `step` the numbers form a grid; without it they are continuous, and search=grid cannot walk them.
    """

    kind: Literal["float"]
    path: str
    low: float
    high: float
    step: PositiveFloat | None = None
    log: bool = False

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a log scale needs low > 0 and no step")
        return _checked_range(self, self.low, self.high, self.step)


class OrderedDimension(FrozenModel):
    """Vary a setting over values whose order means something (powers of two); their index is searched."""

    kind: Literal["ordered"]
    path: str
    values: Annotated[tuple[Value, ...], Field(min_length=1), AfterValidator(_distinct)]


class ChoiceDimension(FrozenModel):
    """Vary a setting over values without an order."""

    kind: Literal["choice"]
    path: str
    values: Annotated[tuple[Value, ...], Field(min_length=1), AfterValidator(_distinct)]


class GraphFamilyDimension(FrozenModel):
    """Vary the rule that gives a pool's CUDA graph sizes from its largest batch; `path` names the pool.

    `listed` takes the sizes that the configuration lists, up to the largest batch; `powers_of_two` and
    `steps_of_32` count up to it; `none` leaves the pool without CUDA graphs.
    """

    kind: Literal["graph_family"]
    path: Role
    values: Annotated[tuple[GraphFamily, ...], Field(min_length=1), AfterValidator(_distinct)]


Dimension = Annotated[
    IntDimension | FloatDimension | OrderedDimension | ChoiceDimension | GraphFamilyDimension,
    Field(discriminator="kind"),
]


class Sweep(FrozenModel):
    """Hold a question and the space of configurations that may answer it.

    With `fill_decode` every GPU that the prefill workers leave free goes to decode workers, and an aggregated
    deployment, whose number of aggregated workers is above 0, has as many of them as fit.
    """

    question: str
    n_trials: Count
    fill_decode: bool = False
    space: Annotated[dict[str, Dimension], Field(min_length=1)]

    def ends(self, path: str) -> tuple[float, float] | None:
        """Return the lowest and highest number that `path` may take; None where no dimension varies it."""
        for dimension in self.space.values():
            if dimension.path == path:
                if isinstance(dimension, IntDimension | FloatDimension):
                    return dimension.low, dimension.high
                numbers = [value for value in dimension.values if isinstance(value, int | float)]
                return (min(numbers), max(numbers)) if numbers else None
        return None

    def has_aggregated(self, base_workers: int) -> bool:
        """Return whether points have aggregated workers; the configuration before them has `base_workers`."""
        ends = self.ends("split.aggregated_workers")
        return ends[1] > 0 if ends else base_workers > 0

    def without(self, path: str) -> Sweep:
        """Return the sweep without the dimension of `path`. Raises ConfigurationError where none is left."""
        space = {name: dimension for name, dimension in self.space.items() if dimension.path != path}
        if not space:
            raise ConfigurationError(
                f"{path}: load.mode=capacity finds it by itself, load.mode=concurrency has none, and this "
                "sweep has no other dimension; expected one that varies the configuration, such as "
                "+sweep=pd_split, or load.mode=fixed."
            )
        return self.model_copy(update={"space": space})

    @model_validator(mode="after")
    def _one_dimension_a_setting(self) -> Self:
        paths = [(dimension.kind == "graph_family", dimension.path) for dimension in self.space.values()]
        if len(set(paths)) < len(paths):
            raise ValueError("two dimensions set the same path")
        if self.fill_decode and (False, "split.decode_workers") in paths:
            raise ValueError("fill_decode already decides split.decode_workers")
        return self


SearchName = Literal["surrogate", "tpe", "random", "grid", "gp"]


class SearchTraits(NamedTuple):
    """Declare what a search method does. Callers branch on these, never on the name of the method.

    Attributes
    ----------
    learns
        Later points depend on earlier results, so few trials run at once.
    learns_from_each
        Every trial may change the next point, so trials run one by one.
    simulates
        It needs the simulator, and so its calibration, also where real engines run.
    predicts_gain
        It says what another trial is expected to gain, and a study may end by it.
    exhaustive
        Every point is measured, so the best one is not the luckiest of a choice.
    """

    learns: bool = True
    learns_from_each: bool = False
    simulates: bool = False
    predicts_gain: bool = False
    exhaustive: bool = False


SEARCH_TRAITS: Mapping[SearchName, SearchTraits] = {
    "surrogate": SearchTraits(learns_from_each=True, simulates=True, predicts_gain=True),
    "tpe": SearchTraits(),
    "gp": SearchTraits(),
    "random": SearchTraits(learns=False),
    "grid": SearchTraits(learns=False, exhaustive=True),
}
"""What each search method does."""


class Search(FrozenModel):
    """Hold how points are suggested.

    `name` is None for the search that suits the load: `surrogate` with load.mode=capacity, else `tpe`. With
    `early_stop` and load.mode=capacity, a deployment is stopped early when it clearly cannot beat the best so
    far, or what `surrogate` predicts of other configurations; the search learns of it what was measured until
    then.
    """

    name: SearchName | None
    startup_trials: Count
    early_stop: bool = False

    @property
    def traits(self) -> SearchTraits:
        """Return what the method does; of one that is still open, that it learns."""
        return SEARCH_TRAITS[self.name] if self.name else SearchTraits()


class StudySettings(FrozenModel):
    """Hold how the trials of a study run.

    `parallel` trials run at once, in batches that the search observes in order of number, so results depend
    on it and not on the number of cores; None is the number of Settings.parallel. With
    `min_gain` a search that predicts its gain ends when another trial is expected to raise the best rate by a
    smaller share. `retries` is how often a command runs a trial again whose infrastructure failed, or whose
    measurement is not valid for a reason that may pass. `trials_per_job` is how many trials one Slurm
    allocation runs, one after the other. With `once` the command does not wait for running trials.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w.@+=-]*$")] | None
    n_trials: Count | None
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    parallel: Count | None
    retries: NonNegativeInt
    trials_per_job: Count
    once: bool
    max_gpu_hours: PositiveFloat | None
    min_gain: NonNegativeFloat
    baseline: bool
