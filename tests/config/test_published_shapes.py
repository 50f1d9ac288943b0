"""Test what the published deployments in examples/mlperf_v6_0 launch, and that every GPU works."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tune.config import compose_overrides
from tune.deploy.plan import render
from tune.engines.check import check
from tune.spec.findings import only_errors

SHARED = {
    "max_seq_len": 22000,
    "stream_interval": 20,
    "kv_cache_config": {"dtype": "fp8", "free_gpu_memory_fraction": 0.95, "enable_block_reuse": False},
    "cache_transceiver_config": {"backend": "UCX", "max_tokens_in_buffer": 20192},
    "scheduler_config": {
        "capacity_scheduler_policy": "MAX_UTILIZATION",
        "context_chunking_policy": "FIRST_COME_FIRST_SERVED",
    },
    "enable_attention_dp": False,
    "sampler_type": "TRTLLMSampler",
}
"""Keys of all four engine files. Source: as in the recipes."""


@pytest.mark.parametrize(
    ("recipe", "shape", "rate_qps", "sizes"),
    [
        ("gb200_nvl72", "14P2D TP4/TP8 4 frontends", 22.2, {(128, 4096), (1280, 1024)}),
        ("gb300_nvl72", "26P5D TP2/TP4 8 frontends", 29.3, {(64, 4096), (256, 512)}),
    ],
)
def test_published_shape_is_launched_key_for_key(
    recipe: str, shape: str, rate_qps: float, sizes: set[tuple[int, int]], root: Path
) -> None:
    folder = str(root / "examples" / "mlperf_v6_0")
    settings = compose_overrides([f"+recipe={recipe}", "cluster=slurm"], [folder]).settings
    spec, split = settings.trial_spec, settings.split
    parallelism = f"TP{spec.prefill.tensor_parallel}/TP{spec.decode.tensor_parallel}"
    assert f"{split.label} {parallelism} {split.frontends} frontends" == shape
    assert (spec.load.target_qps, spec.load.expected_queries % spec.load.dataset.samples) == (rate_qps, 0)
    findings = check(spec)
    assert only_errors(findings) == ()
    assert "split" not in {finding.path for finding in findings}, "no GPU is idle"
    files = render(spec, settings.cluster).files
    prefill, decode = (yaml.safe_load(files[f"{role}.yaml"]) for role in ("prefill", "decode"))
    for keys in (prefill, decode):
        assert SHARED.items() <= keys.items()
    assert {(keys["max_batch_size"], keys["max_num_tokens"]) for keys in (prefill, decode)} == sizes
    assert prefill["torch_compile_config"]["enable_piecewise_cuda_graph"]
    assert decode["num_postprocess_workers"] == 4
