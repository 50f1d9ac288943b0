"""A sweep: a question and the box of configurations that may answer it."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from tune.errors import ConfigurationError
from tune.spec.base import FrozenModel, NonNegativeFloat, PositiveFloat, PositiveInt

Value = str | int | float | bool
GraphFamily = Literal["listed", "powers_of_two", "steps_of_32", "none"]

Dim = TypeVar("Dim")


def _checked_range(dimension: Dim, low: float, high: float) -> Dim:
    if low > high:
        raise ValueError(f"the range is empty: low {low} is above high {high}")
    return dimension


def _distinct(values: tuple[Dim, ...]) -> tuple[Dim, ...]:
    if len(set(values)) < len(values):
        raise ValueError("each value may stand once")
    return values


class IntDimension(FrozenModel):
    kind: Literal["int"]
    path: str
    low: int
    high: int
    step: PositiveInt = 1

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        return _checked_range(self, self.low, self.high)


class FloatDimension(FrozenModel):
    """`step` makes it a grid; without one it is continuous and `search=grid` cannot walk it."""

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
        return _checked_range(self, self.low, self.high)


class OrderedDimension(FrozenModel):
    """Values whose order means something (powers of two): searched as an index, not as categories."""

    kind: Literal["ordered"]
    path: str
    values: Annotated[tuple[Value, ...], Field(min_length=1), AfterValidator(_distinct)]


class ChoiceDimension(FrozenModel):
    kind: Literal["choice"]
    path: str
    values: Annotated[tuple[Value, ...], Field(min_length=1), AfterValidator(_distinct)]


class GraphFamilyDimension(FrozenModel):
    """A rule that gives CUDA graph sizes from the pool's max_batch_size. `path` is prefill or decode.

    `listed`: the sizes the configuration lists, clipped to max_batch_size; `powers_of_two`; `steps_of_32`;
    `none`: no CUDA graphs.
    """

    kind: Literal["graph_family"]
    path: Literal["prefill", "decode"]
    values: Annotated[tuple[GraphFamily, ...], Field(min_length=1), AfterValidator(_distinct)]


Dimension = Annotated[
    IntDimension | FloatDimension | OrderedDimension | ChoiceDimension | GraphFamilyDimension,
    Field(discriminator="kind"),
]


class Sweep(FrozenModel):
    """`fill_decode`: every GPU that the prefill workers leave free goes to decode workers."""

    question: str
    n_trials: PositiveInt
    fill_decode: bool = False
    space: Annotated[dict[str, Dimension], Field(min_length=1)]

    def ends(self, path: str) -> tuple[float, float] | None:
        """Lowest and highest number that the dimension of `path` takes; None where none varies it."""
        for dimension in self.space.values():
            if dimension.path == path:
                if isinstance(dimension, IntDimension | FloatDimension):
                    return dimension.low, dimension.high
                numbers = [value for value in dimension.values if isinstance(value, int | float)]
                return (min(numbers), max(numbers)) if numbers else None
        return None

    def without(self, path: str) -> Sweep:
        """This sweep without the dimension of `path`. Raises ConfigurationError where there is no other."""
        space = {name: dimension for name, dimension in self.space.items() if dimension.path != path}
        if not space:
            raise ConfigurationError(
                f"load.mode=capacity finds {path} by itself, and this sweep has no other dimension; expected "
                "one that varies the configuration, such as +sweep=pd_split, or load.mode=fixed."
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


class Search(FrozenModel):
    """How points are proposed. `name` None is what suits the load: `surrogate` where the highest rate is
    searched for, else `tpe`. `early_stop`: where the highest rate is searched for, a deployment that clearly
    cannot beat the best so far, or what `surrogate` expects of others, is given up; what it shows until then
    is all that the search learns of it."""

    name: Literal["surrogate", "tpe", "random", "grid", "gp"] | None
    startup_trials: PositiveInt
    early_stop: bool = False


class StudySettings(FrozenModel):
    """`parallel` trials run at once, in batches told in number order: results depend on it, not on cores.

    None is the place's own number, Settings.parallel. `min_gain`: a search that knows what to expect ends
    when another trial should raise the best rate by a smaller share. `trials_per_job`: of Slurm, how many
    trials one allocation takes, one after the other. `once`: do not wait for what runs.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w.@+=-]*$")] | None
    n_trials: PositiveInt | None
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    parallel: PositiveInt | None
    trials_per_job: PositiveInt
    once: bool
    max_gpu_hours: PositiveFloat | None
    min_gain: NonNegativeFloat
    baseline: bool
