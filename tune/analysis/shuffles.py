"""Read and write `shuffles.json`: results of one probe under other shuffles of its prompt lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tune.analysis.slo import figure_s
from tune.analysis.validity import slo_violation
from tune.core.files import MOVE_ATTEMPT, first_validation_error, write_text
from tune.errors import ResumableError
from tune.loadgen.latencies import answered, latencies, percentiles_s
from tune.records.outcome import LatencySpread, Percentiles, ShuffleSpread
from tune.records.requests import RequestLog
from tune.spec.base import FrozenModel, NonNegativeFloat, NonNegativeInt, SparseModel, with_optional_fields
from tune.spec.load import Slo
from tune.spec.metrics import FURTHER_LIMITS, LatencyMetric

SHUFFLES_FILE = "shuffles.json"

NEAR_FRAC = 0.25
"""Share of its tightest limit within which a probe, above or below, counts as near that limit.

Between shuffles p99 TTFT of the reference configuration varies by 8 % (sd of ten), that of the fastest
known one by 17 %. Beyond a quarter hardly any shuffle gives the other verdict. Chosen here.
"""


class LoadGenShuffle(SparseModel):
    """Hold one probe under the shuffle of `shuffle_seed`: each figure of the SLO by its limit's key.

    LoadGen's two are None where nothing was measured; those of further limits are absent then.
    """

    shuffle_seed: NonNegativeInt
    ttft_p99_s: NonNegativeFloat | None
    tpot_p99_s: NonNegativeFloat | None
    slo_met: bool


if TYPE_CHECKING:

    class ShuffleResult(LoadGenShuffle):
        """Hold one probe under another shuffle; further limits are fields by their keys."""

else:
    ShuffleResult = with_optional_fields(
        LoadGenShuffle, "ShuffleResult", (limit.key for limit in FURTHER_LIMITS), NonNegativeFloat
    )


class ShuffleResults(FrozenModel):
    """Hold the further shuffles of one probe, without its own."""

    shuffles: tuple[ShuffleResult, ...]


def shuffle_result(log: RequestLog, shuffle_seed: int, slo: Slo) -> ShuffleResult:
    """Return the result of one more run, judged as a probe without LoadGen's verdict.

    Parameters
    ----------
    log
        The requests of the run.
    shuffle_seed
        Seed of its shuffle.
    slo
        The limits.

    Returns
    -------
    ShuffleResult
        Seed, the figure of each of `slo.shown` in seconds, and whether every limit holds.
    """
    good = answered(log)
    times = latencies(log, good)
    figures = {limit.key: figure_s(limit, percentiles_s(times[limit.latency])) for limit in slo.shown}
    held = slo_violation(log, good, times, slo) is None
    return ShuffleResult.model_validate({"shuffle_seed": shuffle_seed, **figures, "slo_met": held})


def near_a_limit(log: RequestLog, slo: Slo) -> bool:
    """Return whether the tightest limit is within NEAR_FRAC, so that another shuffle may differ."""
    times = latencies(log, answered(log))
    figures = (
        (figure_s(limit, percentiles_s(times[limit.latency])), limit_s) for limit, limit_s in slo.limits
    )
    used = [value_s / limit_s for value_s, limit_s in figures if value_s is not None]
    return bool(used) and abs(max(used) - 1) <= NEAR_FRAC


def write_shuffles(folder: Path, results: Sequence[ShuffleResult]) -> None:
    """Write shuffles.json into the folder of a probe; raise ConfigurationError where that fails."""
    record = ShuffleResults(shuffles=tuple(results))
    write_text(folder / SHUFFLES_FILE, record.model_dump_json(indent=1) + "\n")


def read_shuffles(folder: Path) -> tuple[ShuffleResult, ...]:
    """Return the further shuffles of the probe in `folder`, none where it has no such file.

    Raises ResumableError where the file is torn or of another shape.
    """
    path = folder / SHUFFLES_FILE
    try:
        return ShuffleResults.model_validate_json(path.read_bytes()).shuffles
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        raise ResumableError(
            f"{path}: not a readable {SHUFFLES_FILE} ({first_validation_error(error)}); expected "
            "shuffle_seed, ttft_p99_s, tpot_p99_s and slo_met of each shuffle, and the figures of further "
            f"limits. {MOVE_ATTEMPT}"
        ) from error


def shuffle_spread(
    measured: Mapping[LatencyMetric, Percentiles | None],
    held: bool,
    others: Sequence[ShuffleResult],
    slo: Slo,
) -> ShuffleSpread | None:
    """Return the spread over the probe's own shuffle and `others`, None without others.

    Parameters
    ----------
    measured
        The statistics of each latency of the probe.
    held
        Whether the probe held the SLO.
    others
        The probe in other shuffles.
    slo
        The limits; the figure of each of `slo.shown` has a spread where every shuffle measured it.
    """
    if not others:
        return None
    spreads = {
        limit.key: _spread_of(
            [figure_s(limit, measured[limit.latency]), *(getattr(o, limit.key, None) for o in others)]
        )
        for limit in slo.shown
    }
    slo_met = held + sum(result.slo_met for result in others)
    return ShuffleSpread.model_validate({"shuffles": 1 + len(others), "slo_met": slo_met, **spreads})


def _spread_of(values_s: Sequence[float | None]) -> LatencySpread | None:
    """Return the spread of two or more values, `sd` that of a sample (n - 1); None where one is missing."""
    known = [value for value in values_s if value is not None]
    if len(known) < len(values_s):
        return None
    return LatencySpread(mean=fmean(known), sd=stdev(known), min=min(known), max=max(known))
