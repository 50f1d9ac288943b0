"""Tabulate all outcomes of a study and rank them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune.analysis.hold_probability import hold_probability, judged_constraint
from tune.analysis.slo import figure_s
from tune.core.files import write_text
from tune.records.outcome import Breakdown, LatencySpread, Outcome, Percentiles, ShuffleSpread
from tune.records.posterior_summary import PosteriorSummary
from tune.spec.metrics import FURTHER_LIMITS, LATENCIES, RATES, SHOWN_LIMITS, LatencyLimit

if TYPE_CHECKING:
    import pandas as pd

_NAMED = (
    "trial_id", "number", "source", "status", "reason", "valid", "feasible", "output_tps_per_gpu",
    "output_tps", "loadgen_tps", "gpus", "target_qps", "completed_qps", "gpu_hours", "wall_s",
)  # fmt: skip
_PLAIN = (*_NAMED, *(rate.name for rate in RATES if rate.name not in _NAMED))
_TEXTS = ("trial_id", "source", "status", "reason", "bottleneck")
_FLAGS = ("valid", "feasible", "stopped_early")
_COUNTS = ("number", "gpus", "probes", "attempts")
_LATENCIES = tuple(latency.name for latency in LATENCIES)
_ROBUSTNESS = (
    "shuffles", "slo_met_shuffles", "hold_probability", "hold_probability_low", "hold_probability_high",
    *(f"{limit.name}_shuffles_{name}_s" for limit in SHOWN_LIMITS for name in LatencySpread.model_fields),
    "bottleneck",
)  # fmt: skip


def outcome_frame(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return one row for each outcome, in their order; without outcomes the columns stay.

    Columns: the plain fields of Outcome; capacity_low_qps, capacity_high_qps, stopped_early;
    {ttft,tpot,latency}_ {mean,p50,...,max}_s; ttft_p99_constraint, tpot_p99_constraint; the fields of
    Breakdown; the numbers of probes and attempts; over shuffles of the lengths, shuffles, slo_met_shuffles,
    the probability that a further one holds in hold_probability, with its ends _low and _high, and
    {ttft,tpot}_p99_shuffles_{mean,sd,min,max}_s; bottleneck; <limit>_constraint and
    <limit>_shuffles_{mean,sd,min,max}_s for every further limit of the SLO; and param.<name> for every
    parameter in a provenance. Absent numbers are NaN, absent texts missing. A parameter is Int64, float64,
    boolean or str where all its values are, absent or not, and object where they mix.
    """
    import pandas as pd  # noqa: PLC0415  (only the table needs it, and it takes 0.2 s)

    rows = [_row(outcome) for outcome in outcomes]
    columns = {name: [row[name] for row in rows] for name in _columns()}
    data = {name: pd.Series(values, dtype=_dtype(name)) for name, values in columns.items()}
    for limit in _further_limits(outcomes):
        logs = [getattr(outcome.constraints, limit.name) for outcome in outcomes]
        data[f"{limit.name}_constraint"] = pd.Series(logs, dtype="float64")
        spreads = [_over_shuffles(limit, outcome.spread) for outcome in outcomes]
        for name in spreads[0]:
            data[name] = pd.Series([spread[name] for spread in spreads], dtype="float64")
    names = dict.fromkeys(name for outcome in outcomes for name in _params(outcome))
    for name in names:
        values = [_params(outcome).get(name) for outcome in outcomes]
        data[f"param.{name}"] = pd.Series(values, dtype=_param_dtype(values))
    return pd.DataFrame(data)


def rank(outcomes: Sequence[Outcome], posterior: PosteriorSummary | None = None) -> list[dict[str, Any]]:
    """Return the rows of ranking.json, best first, for measured trials only.

    Feasible trials come first, by output tokens/s per GPU. With a `posterior` that figure is scaled by the
    expected over the measured capacity. Then come trials that were stopped early, by their expected
    capacity, then those that missed the SLO, by how far they missed the worst of their limits, and last the
    invalid ones. Ties go to the lower number.
    """
    further = _further_limits(outcomes)
    expected = posterior.expected_over_measured if posterior else {}
    measured = sorted(
        (o for o in outcomes if o.status == "measured"),
        key=lambda outcome: _sort_key(outcome, expected.get(outcome.trial_id, 1.0)),
    )
    return [
        {
            "rank": position,
            "trial_id": outcome.trial_id,
            "number": outcome.number,
            "feasible": outcome.feasible,
            "output_tps_per_gpu": outcome.output_tps_per_gpu,
            **{limit.key: _figure_s(outcome, limit) for limit in (*SHOWN_LIMITS, *further)},
            "target_qps": outcome.target_qps,
            **({} if outcome.concurrency is None else {"concurrency": outcome.concurrency}),
            **_robustness(outcome),
            **{name: v for limit in further for name, v in _over_shuffles(limit, outcome.spread).items()},
            "params": _params(outcome),
            "overrides": list(outcome.provenance.get("overrides", [])),
        }
        for position, outcome in enumerate(measured, start=1)
    ]


def write_ranking(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write ranking.json into `folder`; raise ConfigurationError when it cannot be written."""
    write_text(folder / "ranking.json", json.dumps(rows, indent=1, allow_nan=False) + "\n")


def _sort_key(outcome: Outcome, expected: float) -> tuple[bool, bool, bool, float, int, str]:
    """Return the sort key: feasible, then stopped early, then valid, then merit, then number and id."""
    capacity = outcome.capacity_qps
    if outcome.feasible:
        merit = -(outcome.output_tps_per_gpu or 0.0) * expected
    elif capacity.stopped_early:
        merit = -(capacity.estimate or 0.0)
    else:
        worst = judged_constraint(outcome)
        merit = math.inf if worst is None else worst
    group = (not outcome.feasible, not capacity.stopped_early, not outcome.valid)
    return *group, merit, outcome.number, outcome.trial_id


def _further_limits(outcomes: Sequence[Outcome]) -> list[LatencyLimit]:
    """Return the limits beyond LoadGen's that any of `outcomes` was measured against."""
    return [
        limit
        for limit in FURTHER_LIMITS
        if any(getattr(o.constraints, limit.name, None) is not None for o in outcomes)
    ]


def _figure_s(outcome: Outcome, limit: LatencyLimit) -> float | None:
    """Return the statistic of an outcome that a limit is on, in seconds."""
    return figure_s(limit, outcome.statistics_of(limit.latency))


def _params(outcome: Outcome) -> dict[str, Any]:
    """Return the parameters of a trial from its provenance, none for a trial without them."""
    return dict(outcome.provenance.get("params", {}))


def _robustness(outcome: Outcome) -> dict[str, float | str | None]:
    """Return spread over shuffles and bottleneck, by name of _ROBUSTNESS; None where not measured."""
    spread, bottleneck = outcome.spread, outcome.bottleneck
    probability = hold_probability(spread) if spread else None
    return {
        "shuffles": spread.shuffles if spread else None,
        "slo_met_shuffles": spread.slo_met if spread else None,
        "hold_probability": probability.estimate if probability else None,
        "hold_probability_low": probability.low if probability else None,
        "hold_probability_high": probability.high if probability else None,
        **{name: value for limit in SHOWN_LIMITS for name, value in _over_shuffles(limit, spread).items()},
        "bottleneck": bottleneck.kind if bottleneck else None,
    }


def _over_shuffles(limit: LatencyLimit, spread: ShuffleSpread | None) -> dict[str, float | None]:
    """Return the spread of the figure of a limit by column, all None without one."""
    over, names = spread and spread.of(limit), LatencySpread.model_fields
    return {f"{limit.name}_shuffles_{name}_s": getattr(over, name) if over else None for name in names}


def _columns() -> list[str]:
    """Return the columns of the table, without parameters."""
    latencies = [f"{kind}_{name}_s" for kind in _LATENCIES for name in Percentiles.model_fields]
    return [
        *_PLAIN, "capacity_low_qps", "capacity_high_qps", "stopped_early", *latencies, "ttft_p99_constraint",
        "tpot_p99_constraint", *Breakdown.model_fields, "probes", "attempts", *_ROBUSTNESS,
    ]  # fmt: skip


def _row(outcome: Outcome) -> dict[str, Any]:
    """Return the row of one outcome by column, without parameters."""
    row: dict[str, Any] = {name: getattr(outcome, name) for name in _PLAIN}
    for kind in _LATENCIES:
        measured = getattr(outcome, f"{kind}_s")
        row |= {f"{kind}_{name}_s": measured and getattr(measured, name) for name in Percentiles.model_fields}
    for name in Breakdown.model_fields:
        row[name] = outcome.breakdown and getattr(outcome.breakdown, name)
    return row | {
        "capacity_low_qps": outcome.capacity_qps.low,
        "capacity_high_qps": outcome.capacity_qps.high,
        "stopped_early": outcome.capacity_qps.stopped_early,
        "ttft_p99_constraint": outcome.constraints.ttft_p99,
        "tpot_p99_constraint": outcome.constraints.tpot_p99,
        "probes": len(outcome.probes),
        "attempts": len(outcome.attempts),
        **_robustness(outcome),
    }


def _dtype(column: str) -> str:
    """Return the pandas dtype of a column."""
    if column in _TEXTS:
        return "str"
    if column in _FLAGS:
        return "bool"
    return "int64" if column in _COUNTS else "float64"


def _param_dtype(values: Sequence[Any]) -> str:
    """Return the pandas dtype of a parameter with these values, "object" where they mix."""
    kinds = {type(value) for value in values if value is not None}
    for allowed, dtype in (({bool}, "boolean"), ({int}, "Int64"), ({int, float}, "float64"), ({str}, "str")):
        if kinds <= allowed:
            return dtype
    return "object"
