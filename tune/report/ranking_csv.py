"""Write ranking.csv, one row per trial, for spreadsheets and notebooks; declare its columns."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune.analysis.hold_probability import hold_probability
from tune.analysis.model_error_sources import covered_frac
from tune.core.files import write_text
from tune.records.confirmation import Confirmation
from tune.records.outcome import LatencySpread, Outcome, Percentiles
from tune.records.run_check import CheckResult
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.kind_label import kind_label
from tune.report.trial_status import TRIAL_STATUS_WORDS, trial_status
from tune.spec.metrics import LATENCIES, RATES, SHOWN_LIMITS, TPOT, USER_TPS, LatencyLimit, user_tps

PARAMETER_PREFIX = "param."


@dataclass(frozen=True)
class RankedTrial:
    """Hold a trial with its rank, its study and its guaranteed rate; None where it has no such figure."""

    outcome: Outcome
    study: StudyRecord
    rank: int | None
    guaranteed_qps: float | None


@dataclass(frozen=True)
class CsvColumn:
    """Describe a column: its name, its unit, empty if it has none, its meaning, and its value of a trial."""

    name: str
    unit: str
    meaning: str
    value: Callable[[RankedTrial], Any]


def write_ranking_csv(
    folder: Path,
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    ranks: Mapping[str, int],
    confirmation: Confirmation | None,
) -> None:
    """Write ranking.csv: ranked trials best first, then those that were not measured, by number.

    Parameters
    ----------
    folder
        The folder of the report.
    study
        The record of the study.
    outcomes
        Each trial once.
    ranks
        Rank of every measured trial by its id.
    confirmation
        What a confirmation found, or None.

    Raises
    ------
    ConfigurationError
        If the folder cannot be written.
    """
    configurations = confirmation.configurations if confirmation else ()
    guaranteed = {each.trial_id: each.guaranteed_qps for each in configurations}
    last = len(outcomes) + 1
    trials = [
        RankedTrial(o, study, ranks.get(o.trial_id), guaranteed.get(o.trial_id))
        for o in sorted(outcomes, key=lambda o: (ranks.get(o.trial_id, last), o.number))
    ]
    columns = [*csv_columns(study), *_parameter_columns(study, outcomes)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*(column.name for column in columns), "overrides"])
    for trial in trials:
        overrides = formatting.overrides(trial.outcome)
        row = [column.value(trial) for column in columns]
        table.writerow([*row, None if overrides is None else shlex.join(overrides)])
    write_text(folder / "ranking.csv", text.getvalue())


def csv_columns(study: StudyRecord | None = None) -> tuple[CsvColumn, ...]:
    """Return the columns of a study's file in order, without parameters and overrides; of any without one."""
    limits = study.slo.shown if study else SHOWN_LIMITS
    return (
        *_FIRST,
        *(
            CsvColumn(rate.name, rate.unit, f"{rate.title}: {rate.formula}", _field(rate.name))
            for rate in RATES
        ),
        *_THROUGHPUT,
        *(
            CsvColumn(
                f"{latency.name}_{name}_{latency.unit}",
                latency.unit,
                f"{'mean' if name == 'mean' else name.replace('p99_9', 'p99.9')} of {latency.title}",
                _statistic(latency.field, name),
            )
            for latency in LATENCIES
            for name in Percentiles.model_fields
        ),
        *_ROBUSTNESS,
        *(column for limit in limits for column in _spread_columns(limit)),
        *_LAST,
    )


def _field(name: str) -> Callable[[RankedTrial], Any]:
    """Return a function that returns a field of the outcome."""
    return lambda trial: getattr(trial.outcome, name)


def _rate_of(name: str) -> Callable[[RankedTrial], Any]:
    """Return a function that returns a field of the capacity."""
    return lambda trial: getattr(trial.outcome.capacity_qps, name)


def _statistic(field: str, name: str) -> Callable[[RankedTrial], Any]:
    """Return a function that returns a statistic of a latency, None where it was not measured."""

    def value(trial: RankedTrial) -> Any:
        """Return the statistic of one trial."""
        statistics: Percentiles | None = getattr(trial.outcome, field)
        return None if statistics is None else getattr(statistics, name)

    return value


def _checks_with(result: CheckResult) -> Callable[[RankedTrial], Any]:
    """Return a function that returns the names of the checks of a run with a result, None without any."""
    return lambda t: " ".join(check.name for check in t.outcome.checks if check.result == result) or None


def _spread_columns(limit: LatencyLimit) -> Iterator[CsvColumn]:
    """Yield the columns of the spread of a limit's figure over shuffles."""
    for name in LatencySpread.model_fields:

        def value(trial: RankedTrial, name: str = name) -> Any:
            """Return the figure of one trial."""
            spread = trial.outcome.spread and trial.outcome.spread.of(limit)
            return getattr(spread, name) if spread else None

        unit = limit.latency.unit
        yield CsvColumn(
            f"{limit.name}_shuffles_{name}_{unit}", unit, f"{name} of {limit.label} over shuffles", value
        )


def _part_of_kind(place: int) -> Callable[[RankedTrial], Any]:
    """Return a function that returns the split (place 0) or the parallelism (place 1) of a trial."""

    def value(trial: RankedTrial) -> Any:
        """Return the part of one trial's kind."""
        parts = (kind_label(trial.outcome, trial.study) or "").split(" ")
        return parts[place] if place < len(parts) and parts[place] else None

    return value


def _probability(end: str) -> Callable[[RankedTrial], Any]:
    """Return a function that returns the estimate or an end of the probability that the SLO holds."""

    def value(trial: RankedTrial) -> Any:
        """Return the figure of one trial."""
        spread = trial.outcome.spread
        return getattr(hold_probability(spread), end) if spread else None

    return value


def _parameter_columns(study: StudyRecord, outcomes: Sequence[Outcome]) -> list[CsvColumn]:
    """Return a column per parameter of the trials, with null and lists as JSON."""

    def column(name: str) -> CsvColumn:
        """Return the column of one parameter."""

        def value(trial: RankedTrial) -> Any:
            """Return the value of one trial; empty if it has none."""
            point = formatting.params(trial.outcome)
            if name not in point:
                return None
            shown = point[name]
            return json.dumps(shown) if shown is None or isinstance(shown, tuple) else shown

        unit = formatting.unit(study.space[name], study.engine) if name in study.space else ""
        return CsvColumn(f"{PARAMETER_PREFIX}{name}", unit, "value of the dimension", value)

    return [column(name) for name in dict.fromkeys(n for o in outcomes for n in formatting.params(o))]


_FIRST = (
    CsvColumn("rank", "", "place in the ranking; empty if nothing was measured", lambda t: t.rank),
    CsvColumn("trial_id", "", "name of the trial's folder", _field("trial_id")),
    CsvColumn("number", "", "number of the proposal that measured it first", _field("number")),
    CsvColumn("feasible", "", "whether the measurement is valid and the SLO held", _field("feasible")),
    CsvColumn(
        "verdict",
        "",
        f"one of: {', '.join(TRIAL_STATUS_WORDS.values())}",
        lambda t: TRIAL_STATUS_WORDS[trial_status(t.outcome)],
    ),
    CsvColumn("reason", "", "why it is not feasible, in words", _field("reason")),
    CsvColumn("split", "", "prefill and decode workers, such as 14P4D", _part_of_kind(0)),
    CsvColumn("parallelism", "", "of prefill and decode workers, such as TP4/TP4", _part_of_kind(1)),
    CsvColumn("source", "", "what proposed it: baseline, a search, a command", _field("source")),
    CsvColumn("target_qps", "queries/s", "rate of the run that is judged", _field("target_qps")),
)
_THROUGHPUT = (
    CsvColumn(
        USER_TPS.name,
        USER_TPS.unit,
        f"{USER_TPS.title}: {USER_TPS.formula}",
        lambda trial: user_tps(_statistic(TPOT.field, "p50")(trial)),
    ),
    CsvColumn("gpus", "GPUs", "allocated GPUs, idle ones included", _field("gpus")),
    CsvColumn("gpu_hours", "GPU-hours", "cost of all attempts", _field("gpu_hours")),
    CsvColumn("attempts", "", "number of attempts", lambda t: len(t.outcome.attempts)),
    CsvColumn("verified_qps", "queries/s", "highest rate that held in a full run", _rate_of("low")),
    CsvColumn("missed_qps", "queries/s", "lowest rate above it that missed in a full run", _rate_of("high")),
    CsvColumn("capacity_qps", "queries/s", "estimated capacity of a capacity search", _rate_of("estimate")),
    CsvColumn("prefill_capacity_qps", "queries/s", "capacity of the prefill pool", _rate_of("prefill")),
    CsvColumn("decode_capacity_qps", "queries/s", "capacity of the decode pool", _rate_of("decode")),
    CsvColumn(
        "guaranteed_qps",
        "queries/s",
        "rate at which one further full run holds with the confidence of the confirmation",
        lambda t: t.guaranteed_qps,
    ),
)
_ROBUSTNESS = (
    CsvColumn(
        "shuffles",
        "",
        "number of shuffles that were run",
        lambda t: t.outcome.spread and t.outcome.spread.shuffles,
    ),
    CsvColumn(
        "slo_met_shuffles",
        "",
        "number of them in which the SLO held",
        lambda t: t.outcome.spread and t.outcome.spread.slo_met,
    ),
    CsvColumn(
        "hold_probability", "", "probability that the SLO holds in another shuffle", _probability("estimate")
    ),
    CsvColumn("hold_probability_low", "", "lower end of its interval", _probability("low")),
    CsvColumn("hold_probability_high", "", "upper end of its interval", _probability("high")),
)
_LAST = (
    CsvColumn(
        "model_error_frac",
        "",
        "half of the 90 % interval of the simulator's error, as a share of the rate; empty on a rack",
        lambda t: t.outcome.model_error and covered_frac(t.outcome.model_error.sd_frac),
    ),
    CsvColumn("checks_off", "", "what a live run did not measure as meant", _checks_with("off")),
    CsvColumn("checks_not_counted", "", "checks of it without evidence", _checks_with("not_counted")),
    CsvColumn(
        "bottleneck", "", "what limits the rate", lambda t: t.outcome.bottleneck and t.outcome.bottleneck.kind
    ),
)


def render_columns() -> str:
    """Return docs/reference/ranking.md: every column with its unit and its meaning."""
    lines = [
        "# Columns of ranking.csv",
        "",
        "One row per trial, best first; trials that were not measured follow. An absent figure is an empty",
        "cell, numbers have all their digits, and quantities are in SI units. Generated from",
        "`tune/report/ranking_csv.py`: `make reference` writes this page, and a test compares it.",
        "",
        "| column | unit | meaning |",
        "|---|---|---|",
        *(f"| `{column.name}` | {column.unit} | {column.meaning} |" for column in csv_columns()),
        f"| `{PARAMETER_PREFIX}NAME` | the setting's | value of the dimension; null and lists as JSON |",
        "| `overrides` | | the overrides that measure the trial again, as one line for a shell |",
        "",
        "The columns over shuffles follow the limits of the study: one more limit adds its own.",
    ]
    return "\n".join(lines) + "\n"
