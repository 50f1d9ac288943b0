"""Compute the tiles of the answer: its main figures in large type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tune.loadgen.latencies import p99_s
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting, further_limits
from tune.report.capacity_text import is_capacity_search
from tune.report.trial_status import baseline_trial, limit_shares
from tune.report.verdict_robustness import sd_over_shuffles


@dataclass(frozen=True)
class Tile:
    """Hold one figure in large type. `share` of a limit is drawn as a bar; None draws none."""

    label: str
    value: str
    unit: str
    note: str
    share: float | None = None


def answer_tiles(study: StudyRecord, outcomes: Sequence[Outcome], top: Outcome) -> tuple[Tile, ...]:
    """Return the tiles of throughput, both latencies and the rate of the trial `top`."""
    baseline = baseline_trial(study, outcomes)
    note = f"{formatting.format_figure(top.output_tps, 4)} tokens/s over {top.gpus} GPUs"
    if baseline and baseline is not top and baseline.output_tps_per_gpu and top.output_tps_per_gpu:
        change = top.output_tps_per_gpu / baseline.output_tps_per_gpu - 1
        note = f"{formatting.signed_percent(change)} against the baseline"
    shares = limit_shares(top)
    ttft, tpot = study.slo.ttft_p99_s, study.slo.tpot_p99_s
    ttft_p99, tpot_p99 = p99_s(top.ttft_s), p99_s(top.tpot_s)
    spread = top.spread
    return (
        Tile("Output throughput", formatting.format_figure(top.output_tps_per_gpu, 4), "tokens/s/GPU", note),
        Tile(
            "p99 TTFT",
            formatting.format_figure(ttft_p99),
            "s",
            (f"limit {ttft:g} s" if ttft else "no limit")
            + sd_over_shuffles(spread.ttft_p99_s if spread else None, formatting.seconds),
            shares.get("p99 TTFT"),
        ),
        Tile(
            "p99 TPOT",
            formatting.format_figure(tpot_p99 and tpot_p99 * 1e3),
            "ms",
            (f"limit {tpot * 1e3:g} ms" if tpot else "no limit")
            + sd_over_shuffles(spread.tpot_p99_s if spread else None, formatting.milliseconds),
            shares.get("p99 TPOT"),
        ),
        *(Tile(*facts) for facts in further_limits.tile_facts(study.slo, top)),
        _rate_tile(top),
    )


def _rate_tile(top: Outcome) -> Tile:
    """Return the tile of the rate: the verified one of a capacity search, otherwise the offered one."""
    completed = f"{formatting.format_figure(top.completed_qps, 4)} QPS completed"
    rates = top.capacity_qps
    if rates.low is None or not is_capacity_search(top):
        return Tile("Request rate", f"{top.target_qps:.4g}", "QPS offered", completed)
    notes = [f"{rates.high:.4g} missed"] if rates.high else []
    notes += [f"estimated capacity {rates.estimate:.4g}"] if rates.estimate else []
    return Tile("Verified rate", f"{rates.low:.4g}", "QPS", ", ".join(notes or [completed]))
