"""Test that every engine setting and the split change the simulation, or are listed as without effect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.sim_trials import digest, short_trial

from tune.engines.trtllm.trtllm_engine import TrtLlmEngine
from tune.engines.trtllm.trtllm_groups import (
    CacheTransceiverConfig,
    CudaGraphConfig,
    KvCacheConfig,
    SchedulerConfig,
)
from tune.sim.simulator import simulate_serving
from tune.spec.base import FrozenModel
from tune.spec.split import Split

BUSY = ("load.target_qps=40", "load.min_queries=1500")
NO_GRAPHS = "cuda_graph_config=null"
BLOCKS = "kv_cache_config={{dtype: fp8, free_gpu_memory_fraction: 0.95, tokens_per_block: {}}}"
PYTHON = "cache_transceiver_config={max_tokens_in_buffer: 20192, transceiver_runtime: PYTHON}"
POLICY = "scheduler_config={{capacity_scheduler_policy: {}, context_chunking_policy: {}}}"

CHANGES: dict[str, tuple[str, ...]] = {
    "prefill.tensor_parallel_size": ("prefill.tensor_parallel_size=2",),
    "prefill.pipeline_parallel_size": ("prefill.pipeline_parallel_size=2",),
    "prefill.max_batch_size": ("prefill.max_batch_size=1", *BUSY),
    "prefill.max_num_tokens": ("prefill.max_num_tokens=8192",),
    "prefill.max_seq_len": ("prefill.max_seq_len=8000",),
    "prefill.disable_overlap_scheduler": ("prefill.disable_overlap_scheduler=false",),
    "prefill.enable_chunked_prefill": ("prefill.enable_chunked_prefill=false",),
    "prefill.kv_cache_config.dtype": ("prefill.kv_cache_config.dtype=bfloat16",),
    "prefill.kv_cache_config.free_gpu_memory_fraction": (
        "prefill.kv_cache_config.free_gpu_memory_fraction=0.02",
        *BUSY,
    ),
    "prefill.kv_cache_config.tokens_per_block": ("prefill." + BLOCKS.format(1024),),
    "prefill.cache_transceiver_config.max_tokens_in_buffer": (
        "prefill.cache_transceiver_config.max_tokens_in_buffer=1000000",
        *BUSY,
    ),
    "prefill.scheduler_config.capacity_scheduler_policy": (
        "prefill." + POLICY.format("STATIC_BATCH", "FIRST_COME_FIRST_SERVED"),
        *BUSY,
    ),
    "prefill.scheduler_config.context_chunking_policy": (
        "prefill." + POLICY.format("MAX_UTILIZATION", "EQUAL_PROGRESS"),
        *BUSY,
    ),
    "decode.tensor_parallel_size": ("decode.tensor_parallel_size=8",),
    "decode.pipeline_parallel_size": ("decode.pipeline_parallel_size=2",),
    "decode.max_batch_size": ("decode.max_batch_size=32",),
    "decode.max_num_tokens": ("decode.max_num_tokens=32",),
    "decode.max_seq_len": ("decode.max_seq_len=8000",),
    "decode.disable_overlap_scheduler": ("decode.disable_overlap_scheduler=true",),
    "decode.stream_interval": ("decode.stream_interval=20",),
    "decode.kv_cache_config.dtype": ("decode.kv_cache_config.dtype=bfloat16",),
    "decode.kv_cache_config.free_gpu_memory_fraction": (
        "decode.kv_cache_config.free_gpu_memory_fraction=0.3",
        *BUSY,
    ),
    "decode.kv_cache_config.tokens_per_block": ("decode." + BLOCKS.format(4096), *BUSY),
    "decode.cuda_graph_config.max_batch_size": (
        "decode.cuda_graph_config={batch_sizes: null, max_batch_size: 64}",
    ),
    "decode.cuda_graph_config": ("decode." + NO_GRAPHS,),
    "decode.cuda_graph_config.batch_sizes": ("decode.cuda_graph_config.batch_sizes=[64, 512]",),
    "decode.cuda_graph_config.enable_padding": ("decode.cuda_graph_config.enable_padding=false",),
    "decode.cache_transceiver_config.max_tokens_in_buffer": (
        "decode.cache_transceiver_config.max_tokens_in_buffer=500000",
        *BUSY,
    ),
    "decode.scheduler_config.capacity_scheduler_policy": (
        "decode." + POLICY.format("MAX_UTILIZATION", "FIRST_COME_FIRST_SERVED"),
        "split.decode_workers=1",
        *BUSY,
    ),
    "split.prefill_workers": ("split.prefill_workers=13",),
    "split.decode_workers": ("split.decode_workers=3",),
    "split.aggregated_workers": ("split.aggregated_workers=17", "split=aggregated"),
    "split.disaggregation_strategy": ("split.disaggregation_strategy=decode_first",),
    "split.head": ("split.head=decode", "cluster.calibration.head_node_scale=1.3"),
    "split.frontends": ("split.frontends=2",),
    "stack.router_mode": ("stack.router_mode=random",),
}
"""What shows the effect of each knob; where it needs a full pool to show, the load is raised in both runs."""

WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    "split.frontend_choice": ("split.frontend_choice=fewest_input_tokens",),
    "prefill.stream_interval": ("prefill.stream_interval=20",),
    "prefill.kv_cache_config.enable_block_reuse": ("prefill.kv_cache_config.enable_block_reuse=true",),
    "prefill.cuda_graph_config": ("prefill.cuda_graph_config={batch_sizes: [1], enable_padding: true}",),
    "prefill.cache_transceiver_config.backend": ("prefill.cache_transceiver_config.backend=UCX",),
    "prefill.cache_transceiver_config.transceiver_runtime": ("prefill." + PYTHON,),
    "decode.cache_transceiver_config.transceiver_runtime": ("decode." + PYTHON,),
    "prefill.extra": ("prefill.extra={allreduce_strategy: MNNVL}",),
    "decode.enable_chunked_prefill": ("decode.enable_chunked_prefill=true",),
    "decode.kv_cache_config.enable_block_reuse": ("decode.kv_cache_config.enable_block_reuse=true",),
    "decode.cache_transceiver_config.backend": ("decode.cache_transceiver_config.backend=UCX",),
    "decode.scheduler_config.context_chunking_policy": (
        "decode." + POLICY.format("GUARANTEED_NO_EVICT", "EQUAL_PROGRESS"),
    ),
    "decode.extra": ("decode.extra={allreduce_strategy: MNNVL}",),
}

NOT_SIMULATED = {
    *("prefill.context_parallel_size", "decode.context_parallel_size"),
    *("prefill.env", "decode.env"),
}
"""Knobs that the simulated rack refuses (tests/engines/test_weight_dtype.py) or warns of."""

ONE_VALUE = {"prefill.backend", "decode.backend"}
"""Knobs that the configuration accepts one value of."""

NESTED: dict[str, type[FrozenModel]] = {
    "kv_cache_config": KvCacheConfig,
    "cuda_graph_config": CudaGraphConfig,
    "cache_transceiver_config": CacheTransceiverConfig,
    "scheduler_config": SchedulerConfig,
}


@pytest.mark.slow
@pytest.mark.parametrize("setting", CHANGES)
def test_the_setting_changes_the_simulation(setting: str) -> None:
    changed, *load = CHANGES[setting]
    assert digest(simulate_serving(*short_trial(*load, changed))) != digest(
        simulate_serving(*short_trial(*load))
    )


@pytest.mark.parametrize("setting", WITHOUT_EFFECT)
def test_the_setting_without_effect_changes_nothing(setting: str) -> None:
    (changed,) = WITHOUT_EFFECT[setting]
    for load in ((), BUSY):
        assert digest(simulate_serving(*short_trial(*load, changed))) == digest(
            simulate_serving(*short_trial(*load))
        )


def test_no_setting_is_forgotten() -> None:
    settings = {f"split.{name}" for name in Split.model_fields} | {"stack.router_mode"}
    for role in ("prefill", "decode"):
        for name in TrtLlmEngine.model_fields:
            inner = NESTED.get(name)
            settings |= (
                {f"{role}.{name}.{key}" for key in inner.model_fields} if inner else {f"{role}.{name}"}
            )
    settings -= {f"prefill.cuda_graph_config.{key}" for key in CudaGraphConfig.model_fields}
    settings |= {"prefill.cuda_graph_config", "decode.cuda_graph_config"}
    assert settings == {*CHANGES, *WITHOUT_EFFECT, *NOT_SIMULATED, *ONE_VALUE}


def test_the_document_explains_the_settings_without_effect(root: Path) -> None:
    text = (root / "docs" / "simulator.md").read_text(encoding="utf-8")
    section = text.split("## Knobs without effect", 1)[1].split("\n## ", 1)[0]
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE))
    assert rows.keys() >= WITHOUT_EFFECT.keys() | ONE_VALUE
    assert all(len(reason) > 20 for reason in rows.values())
