"""The ranked table as data: what every row shows, and what it unfolds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tune.loadgen.latencies import p99_s
from tune.records.outcome import Bottleneck, Breakdown, LatencySpread, Outcome, Percentiles, ShuffleSpread
from tune.records.study_record import StudyRecord
from tune.report import formatting, further_limits
from tune.report.capacity_text import bracket, came_to, cost, kind, searched
from tune.report.trial_status import TRIAL_STATUS_MEANING, TRIAL_STATUS_WORDS, TRIAL_STATUSES, trial_status

PERCENTILES = tuple(Percentiles.model_fields)
STAGES = tuple(Breakdown.model_fields)


def table(study: StudyRecord, outcomes: Sequence[Outcome], ranks: Mapping[str, int]) -> dict[str, Any]:
    """JSON of the table. `outcomes` holds each trial once, `ranks` the place of every ranked trial by its id.

    Each override is written once, quoted for a shell, and rows refer to it by index: thousands of rows share
    most of theirs. Figures keep five significant digits.
    """
    names = _param_names(study, outcomes)
    pool: dict[str, int] = {}
    order = {v: backend for backend, v in enumerate(TRIAL_STATUSES)}
    last = len(outcomes) + 1
    ordered = sorted(outcomes, key=lambda o: (ranks.get(o.trial_id, last), order[trial_status(o)], o.number))
    rows = [_row(o, names, ranks.get(o.trial_id), study, pool) for o in ordered]
    return {
        "params": [_column(name, study) for name in names],
        "verdicts": [
            {"key": v, "word": TRIAL_STATUS_WORDS[v], "meaning": TRIAL_STATUS_MEANING[v]}
            for v in TRIAL_STATUSES
        ],
        "percentiles": [name.replace("p99_9", "p99.9") for name in PERCENTILES],
        "stages": STAGES,
        "limits": {"ttft_s": study.slo.ttft_p99_s, "tpot_s": study.slo.tpot_p99_s},
        **further_limits.table_columns(study.slo),
        "command": formatting.COMMAND,
        "fields": list(rows[0]) if rows else [],
        "rows": [list(row.values()) for row in rows],
        "overrides": list(pool),
    }


def _param_names(study: StudyRecord, outcomes: Sequence[Outcome]) -> list[str]:
    """The dimensions of the space, except the rate and the split, which have columns of their own."""
    seen = dict.fromkeys([*study.space, *(name for o in outcomes for name in formatting.params(o))])
    own = ("load.target_qps", *formatting.SPLIT_PATHS)
    return [n for n in seen if n not in study.space or study.space[n].path not in own]


def _column(name: str, study: StudyRecord) -> dict[str, str]:
    dimension = study.space.get(name)
    if dimension is None:
        return {"title": name, "unit": ""}
    return {"title": formatting.setting_name(name, dimension), "unit": formatting.unit(dimension)}


def _row(
    outcome: Outcome, names: Sequence[str], rank: int | None, study: StudyRecord, pool: dict[str, int]
) -> dict[str, Any]:
    point = formatting.params(outcome)
    return {
        "rank": rank,
        "number": outcome.number,
        "id": outcome.trial_id,
        "source": outcome.source,
        "verdict": trial_status(outcome),
        "split": formatting.split_label(outcome),
        "label": formatting.describe_configuration(outcome, study.space),
        "reason": outcome.reason,
        "tps_gpu": short(outcome.output_tps_per_gpu),
        "qps": short(outcome.target_qps),
        "ttft_s": _percentiles(outcome.ttft_s),
        "tpot_s": _percentiles(outcome.tpot_s),
        "latency_s": _percentiles(outcome.latency_s),
        "completed_qps": short(outcome.completed_qps),
        "loadgen_tps": short(outcome.loadgen_tps),
        "hours": short(outcome.gpu_hours),
        "attempts": len(outcome.attempts),
        "params": [point.get(name) for name in names],
        "overrides": _indices(formatting.overrides(outcome), pool),
        "stages": outcome.breakdown and [short(getattr(outcome.breakdown, name)) for name in STAGES],
        "capacity": _capacity(outcome),
        "spread": outcome.spread and _spread(outcome.spread),
        "bottleneck": outcome.bottleneck and _binding(outcome.bottleneck),
    }


def _indices(texts: list[str] | None, pool: dict[str, int]) -> list[int] | None:
    return None if texts is None else [pool.setdefault(formatting.quoted(text), len(pool)) for text in texts]


def _percentiles(percentiles: Percentiles | None) -> list[float | None] | None:
    return [short(getattr(percentiles, name)) for name in PERCENTILES] if percentiles else None


def _spread(spread: ShuffleSpread) -> list[Any]:
    """Orders, those that held the SLO, then mean, sd, min and max of p99 TTFT and p99 TPOT in seconds."""
    return [spread.shuffles, spread.slo_held, _spread_of(spread.ttft_p99_s), _spread_of(spread.tpot_p99_s)]


def _spread_of(of: LatencySpread | None) -> list[float | None] | None:
    return [short(of.mean), short(of.sd), short(of.min), short(of.max)] if of else None


def _binding(binding: Bottleneck) -> list[Any]:
    """What binds, the evidence, and what to try with its overrides as words of a shell."""
    tried = [
        [r.text, " ".join(formatting.quoted(text) for text in r.overrides)] for r in binding.recommendations
    ]
    return [formatting.BINDS[binding.kind], binding.evidence, tried]


def _capacity(outcome: Outcome) -> dict[str, Any] | None:
    """The bracket in words, and every probe; None where one rate was asked."""
    if not searched(outcome):
        return None
    probes = [
        [kind(p), came_to(p), short(p.target_qps), p.queries, short(p99_s(p.ttft_s)), short(p99_s(p.tpot_s))]
        for p in outcome.probes
    ]
    return {"text": f"{bracket(outcome)}; {cost(outcome)}.", "probes": probes}


def short(value: float | None) -> float | None:
    """Five significant digits, which is more than a run can repeat, in as few characters as they need."""
    return None if value is None else float(f"{value:.5g}")
