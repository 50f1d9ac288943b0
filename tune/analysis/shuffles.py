"""`shuffles.json`: what one probe came to under other orders of prompt lengths, and the spread over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from pydantic import ValidationError

from tune.analysis.validity import slo_violation
from tune.core.files import first_validation_error, write_text
from tune.errors import ResumableError
from tune.loadgen.latencies import answered, latencies, p99_s, percentiles_s
from tune.records.outcome import LatencySpread, Percentiles, ShuffleSpread
from tune.records.requests import RequestLog
from tune.spec.base import FrozenModel, NonNegativeFloat, NonNegativeInt
from tune.spec.load import Slo

SHUFFLES_FILE = "shuffles.json"

NEAR_FRAC = 0.25
"""A probe is near the knee where its tightest limit is used to within this share of it, above or below.

From order to order p99 TTFT of the reference configuration strays by 8 % (sd of ten), of the fastest known
one by 17 %: beyond a quarter hardly an order gives the other verdict. Our choice.
"""


class ShuffleResult(FrozenModel):
    """One probe with the lengths in the order of `shuffle_seed`; a p99 is None where nothing was measured."""

    shuffle_seed: NonNegativeInt
    ttft_p99_s: NonNegativeFloat | None
    tpot_p99_s: NonNegativeFloat | None
    slo_held: bool


class ShuffleResults(FrozenModel):
    """The further orders of one probe, its own left out."""

    shuffles: tuple[ShuffleResult, ...]


def shuffle_result(log: RequestLog, shuffle_seed: int, slo: Slo) -> ShuffleResult:
    """What one more run came to. The SLO is judged as that of a probe is, LoadGen's word left out."""
    good = answered(log)
    times = latencies(log, good)
    ttft, tpot = percentiles_s(times.ttft_ns), percentiles_s(times.tpot_ns)
    return ShuffleResult(
        shuffle_seed=shuffle_seed,
        ttft_p99_s=p99_s(ttft),
        tpot_p99_s=p99_s(tpot),
        slo_held=slo_violation(log, good, times, slo) is None,
    )


def near_a_limit(order: ShuffleResult, slo: Slo) -> bool:
    """Whether another order of lengths may well give another verdict: NEAR_FRAC says when."""
    pairs = ((order.ttft_p99_s, slo.ttft_p99_s), (order.tpot_p99_s, slo.tpot_p99_s))
    used = [p99_s / limit_s for p99_s, limit_s in pairs if p99_s is not None and limit_s is not None]
    return bool(used) and abs(max(used) - 1) <= NEAR_FRAC


def write_shuffles(folder: Path, orders: Sequence[ShuffleResult]) -> None:
    """Write shuffles.json into the folder of a probe. Raises ConfigurationError where that fails."""
    record = ShuffleResults(shuffles=tuple(orders))
    write_text(folder / SHUFFLES_FILE, record.model_dump_json(indent=1) + "\n")


def read_shuffles(folder: Path) -> tuple[ShuffleResult, ...]:
    """The further orders of the probe in `folder`, none where it has no such file.

    Raises ResumableError where the file is torn or of another shape.
    """
    path = folder / SHUFFLES_FILE
    try:
        return ShuffleResults.model_validate_json(path.read_bytes()).shuffles
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        raise ResumableError(
            f"{path}: not a readable {SHUFFLES_FILE} ({first_validation_error(error)}); expected shuffle_seed, ttft_p99_s, "
            "tpot_p99_s and slo_held of each order. Remove it, or use rerun=true."
        ) from error


def shuffle_spread(
    ttft: Percentiles | None, tpot: Percentiles | None, held: bool, orders: Sequence[ShuffleResult]
) -> ShuffleSpread | None:
    """The probe's own p99 figures and verdict together with its further orders; None without any."""
    if not orders:
        return None
    return ShuffleSpread(
        shuffles=1 + len(orders),
        slo_held=held + sum(order.slo_held for order in orders),
        ttft_p99_s=_spread_of([p99_s(ttft), *(order.ttft_p99_s for order in orders)]),
        tpot_p99_s=_spread_of([p99_s(tpot), *(order.tpot_p99_s for order in orders)]),
    )


def _spread_of(values_s: Sequence[float | None]) -> LatencySpread | None:
    """Of two or more orders, `sd` that of a sample (n - 1); None where one of them has no figure."""
    known = [value for value in values_s if value is not None]
    if len(known) < len(values_s):
        return None
    return LatencySpread(mean=fmean(known), sd=stdev(known), min=min(known), max=max(known))
