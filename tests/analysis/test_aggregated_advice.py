"""Test what is said of aggregated workers: bottleneck, recommendations, model error, checks of the run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from support.composed import changed, composed
from support.run_evidence import LeftRun

from tune.analysis.bottleneck import ProbeSummary, find_bottleneck
from tune.analysis.model_error_sources import estimate_model_error
from tune.engines.base import Remedy, RemedyKind
from tune.engines.check import check
from tune.engines.registry import engine_of
from tune.records.outcome import Bottleneck, Breakdown, Constraints
from tune.spec.findings import only_errors
from tune.spec.settings import Settings

STAGES = ("queue", "prefill", "transfer", "slot", "first_step")
CASES = ((1.2, 0.5, "queue"), (1.2, 0.5, "prefill"), (1.2, 0.5, "slot"), (0.5, 1.2, "slot"))
"""Share of the limits on TTFT and TPOT that is used, and the stage that takes most of the slowest TTFT."""
REMEDIES = ("larger_chunks", "smaller_chunks", "wider_batch", "more_kv_cache", "larger_worker")


def aggregated(*changes: str) -> Settings:
    return changed(composed("split=aggregated", "stack=dynamo_v1"), *changes)


def bottleneck(ttft: float, tpot: float, *changes: str, **figures: float) -> Bottleneck:
    known = dict.fromkeys(Breakdown.model_fields) | {f"tail_{name}_s": 0.0 for name in STAGES}
    constraints = Constraints(ttft_p99=math.log(ttft), tpot_p99=math.log(tpot))
    probe = ProbeSummary(12.0, None, constraints, Breakdown(**(known | figures)))
    return find_bottleneck(aggregated(*changes).trial_spec, probe)


def overrides_of(found: Bottleneck) -> list[str]:
    return [override for advice in found.recommendations for override in advice.overrides]


def test_a_queue_before_the_workers_asks_for_larger_chunks_and_one_more_worker() -> None:
    found = bottleneck(
        *(1.2, 0.5, "split.aggregated_workers=17"),
        **{"tail_queue_s": 5.0, "prefill_utilisation": 0.95, "decode_batch": 20.0},
    )
    assert found.kind == "prefill"
    assert "aggregated workers read prompts 95 % of the time" in found.evidence
    assert {"split.aggregated_workers=18", "aggregated.max_num_tokens=2048"} <= {*overrides_of(found)}


def test_a_long_step_asks_for_smaller_chunks_and_larger_workers() -> None:
    found = bottleneck(0.5, 1.3, decode_batch=30.0, decode_batch_max=35.0)
    assert found.kind == "decode_step_time"
    assert "an aggregated worker holds 30 sequences" in found.evidence
    assert "aggregated.max_num_tokens=512" in overrides_of(found)
    assert {"aggregated.tensor_parallel_size=8", "split.aggregated_workers=9"} <= {*overrides_of(found)}


def test_no_advice_is_for_a_pool_that_is_not_there() -> None:
    for ttft, tpot, stage in (
        (1.2, 0.5, "queue"),
        (1.2, 0.5, "prefill"),
        (1.2, 0.5, "slot"),
        (0.5, 1.2, "slot"),
    ):
        found = bottleneck(
            ttft, tpot, **{f"tail_{stage}_s": 5.0, "decode_batch": 60.0, "decode_batch_max": 128.0}
        )
        paths = {override.partition("=")[0] for override in overrides_of(found)}
        assert not {path for path in paths if path.startswith(("prefill", "decode", "split.p", "split.d"))}


@pytest.mark.parametrize("stack", [("dynamo_v1", "chunked"), ("dynamo_vllm", "vllm")])
@pytest.mark.parametrize("kind", REMEDIES)
def test_every_remedy_is_a_setting_that_breaks_no_rule(stack: tuple[str, str], kind: RemedyKind) -> None:
    words = ("split=aggregated", f"stack={stack[0]}", f"aggregated={stack[1]}", "cluster=slurm")
    settings = composed(*words, *(("hardware=h200_dgx", "hardware.nodes=2") if "vllm" in stack else ()))
    settings = changed(settings, "split.aggregated_workers=4")
    for advice in engine_of(settings.trial_spec).recommend(
        settings.trial_spec, Remedy(kind, "aggregated", batch=160)
    ):
        followed = changed(settings, *advice.overrides)
        assert followed.trial_spec.trial_id != settings.trial_spec.trial_id or not advice.overrides
        before = {error.path for error in only_errors(check(settings.trial_spec))}
        assert {error.path for error in only_errors(check(followed.trial_spec))} <= before


def test_the_model_error_names_steps_that_were_never_compared() -> None:
    settings = aggregated()
    assert settings.cluster.calibration is not None
    for kind in (None, "prefill", "decode_step_time"):
        error = estimate_model_error(settings.trial_spec, settings.cluster.calibration, kind)
        own = {source.name: source.sd_frac for source in error.sources}
        assert own["steps with prompts and answers"] == 0.08
        assert error.sd_frac > 0.08
    both = composed().trial_spec
    error = estimate_model_error(both, settings.cluster.calibration, None)
    assert "steps with prompts and answers" not in {source.name for source in error.sources}


def test_no_kv_transfer_is_expected(tmp_path: Path) -> None:
    overrides = ("stack=dynamo_v1", "split=aggregated", "split.aggregated_workers=4")
    check = LeftRun(tmp_path, overrides=overrides, transport={}).check("kv_transfers")
    assert (check.result, check.found) == ("not_counted", "aggregated workers send no KV cache")
