"""Test memory of weights and KV cache per rank: experts, attention data parallelism, the one head of MLA."""

from __future__ import annotations

from typing import Any

import pytest
from support.composed import composed

from tune.engines.check import check
from tune.engines.trtllm.gpu_memory import trtllm_kv_capacity_tokens
from tune.spec.engine import Engine
from tune.spec.memory import kv_bytes_per_token, weight_bytes_per_gpu
from tune.spec.model import Model
from tune.spec.settings import Settings

EXPERTS = 256 * 3 * 7168 * 2048 * (58 * 4.5 + 16) / 8
"""Bytes of the experts of DeepSeek-R1: those of 58 layers in NVFP4, of the MTP layer in BF16."""


@pytest.fixture(scope="module")
def deepseek() -> Settings:
    return composed("model=deepseek_r1_fp4")


def engine_of(settings: Settings, **changes: Any) -> Engine:
    engine: Engine = settings.decode.model_copy(update=changes)
    return engine


def moe(groups: int, attention_dp: bool) -> dict[str, Any]:
    return {"moe_expert_parallel_size": groups, "enable_attention_dp": attention_dp}


@pytest.mark.parametrize(
    ("ranks", "extra", "experts_on_a_rank", "others_on_a_rank"),
    [
        (4, {}, 1 / 4, 1 / 4),
        (4, moe(4, False), 1 / 4, 1 / 4),
        (16, moe(16, True), 1 / 16, 1),
        (16, moe(4, True), 1 / 16, 1),
        (12, moe(12, True), 22 / 256, 1),  # ranks with 22 experts, and with 21
        (12, moe(3, False), 86 / 256 / 4, 1 / 12),
        (8, {"moe_tensor_parallel_size": 2}, 1 / 8, 1 / 8),
    ],
)
def test_experts_are_divided_and_other_weights_are_whole_on_each_rank_of_attention_dp(
    deepseek: Settings, ranks: int, extra: dict[str, Any], experts_on_a_rank: float, others_on_a_rank: float
) -> None:
    model, engine = deepseek.model, engine_of(deepseek, tensor_parallel_size=ranks, extra=extra)
    expected = EXPERTS * experts_on_a_rank + (model.checkpoint_bytes - EXPERTS) * others_on_a_rank
    assert weight_bytes_per_gpu(model, engine) == pytest.approx(expected, rel=1e-9)
    staged = engine.model_copy(update={"pipeline_parallel_size": 2})
    assert weight_bytes_per_gpu(model, staged) == pytest.approx(expected / 2, rel=1e-9)


def test_the_compressed_cache_is_on_every_rank_and_with_attention_dp_on_one(deepseek: Settings) -> None:
    """A token takes 512 + 64 numbers in each of 61 layers; the reference keeps them in FP8."""
    assert kv_bytes_per_token(deepseek.model, engine_of(deepseek)) == 4 * 61 * 576
    by_rank = engine_of(deepseek, tensor_parallel_size=16, extra=moe(16, True))
    assert kv_bytes_per_token(deepseek.model, by_rank) == 61 * 576


def test_a_cache_of_the_checkpoints_format_has_its_bytes(deepseek: Settings) -> None:
    auto = deepseek.decode.kv_cache_config.model_copy(update={"dtype": "auto"})  # type: ignore[attr-defined]
    engine = engine_of(deepseek, kv_cache_config=auto)
    plain, scaled = (
        kv_bytes_per_token(deepseek.model.model_copy(update={"kv_dtype": dtype}), engine)
        for dtype in (None, "fp8")
    )
    assert plain == 2 * scaled


def test_windows_are_not_relied_on() -> None:
    settings = composed("model=gpt_oss_120b")
    assert kv_bytes_per_token(settings.model, engine_of(settings)) == 2 * 36 * 8 * 64


def test_a_longest_sequence_has_to_fit_one_rank_of_attention_dp() -> None:
    shape = ("model=deepseek_r1_fp4", "decode.tensor_parallel_size=8", "split.decode_workers=2")
    by_rank = composed(
        *shape, "+decode.extra.enable_attention_dp=true", "+decode.extra.moe_expert_parallel_size=8"
    )
    spec = by_rank.trial_spec
    tokens = trtllm_kv_capacity_tokens(spec.model, spec.hardware, spec.decode) // 8  # type: ignore[arg-type]
    longest = spec.load.dataset.longest_prompt_tokens + spec.load.dataset.longest_answer_tokens
    assert tokens > longest
    path = "decode.kv_cache_config.free_gpu_memory_fraction"
    assert path not in {finding.path for finding in check(spec)}
    share = 0.9 * longest / tokens * by_rank.decode.kv_cache_config.free_gpu_memory_fraction  # type: ignore[attr-defined]
    smaller = composed(*shape, "+decode.extra.enable_attention_dp=true",
        "+decode.extra.moe_expert_parallel_size=8", f"{path}={share}")  # fmt: skip
    (finding,) = (finding for finding in check(smaller.trial_spec) if finding.path == path)
    assert finding.found.endswith("tokens a rank")


def test_a_model_without_sizes_of_experts_is_sharded_evenly() -> None:
    settings = composed()
    unsized: Model = settings.model.model_copy(update={"experts": 8})
    engine = engine_of(settings, extra=moe(4, True))
    assert weight_bytes_per_gpu(unsized, engine) == settings.model.checkpoint_bytes / 4
