from __future__ import annotations

import pytest
from support.vllm_trials import vllm_settings

from tune.engines.check import check
from tune.spec.findings import Severity


def test_the_deployment_of_two_gpus_breaks_no_rule() -> None:
    assert not [finding for finding in check(vllm_settings().trial_spec) if finding.severity == "error"]


@pytest.mark.parametrize(
    ("overrides", "severity", "path"),
    [
        (["stack.system_port=null"], "error", "stack.system_port"),
        (["stack.system_port=32767"], "error", "stack.system_port"),
        (["stack.frontend_port=10101"], "error", "stack"),
        (["prefill.kv_cache_dtype=fp8"], "error", "prefill.kv_cache_dtype"),
        (["prefill.block_size=32"], "error", "prefill.block_size"),
        (["model.attention_heads=63"], "error", "prefill.tensor_parallel_size"),
        (["model.layers=1"], "error", "prefill.pipeline_parallel_size"),
        (["hardware.gpus_per_node=1", "hardware.nodes=4"], "error", "prefill.tensor_parallel_size"),
        (["prefill.max_model_len=512"], "error", "prefill.max_model_len"),
        (["prefill.max_model_len=200000"], "error", "prefill.max_model_len"),
        (["decode.max_model_len=520"], "warning", "decode.max_model_len"),
        (["decode.max_num_batched_tokens=128"], "error", "decode.max_num_batched_tokens"),
        (["prefill.enable_chunked_prefill=false"], "error", "prefill.max_num_batched_tokens"),
        (["decode.cudagraph_capture_sizes=[]"], "error", "decode.cudagraph_capture_sizes"),
        (["decode.cudagraph_capture_sizes=[8]"], "warning", "decode.cudagraph_capture_sizes"),
        (
            ["decode.enforce_eager=true", "decode.cudagraph_capture_sizes=[256]"],
            "warning",
            "decode.cudagraph_capture_sizes",
        ),
        (["model.checkpoint_bytes=140e9"], "error", "prefill.tensor_parallel_size"),
        (["decode.gpu_memory_utilization=0.32"], "error", "decode.gpu_memory_utilization"),
        (
            ["decode.max_num_seqs=4000", "decode.cudagraph_capture_sizes=null"],
            "warning",
            "decode.max_num_seqs",
        ),
    ],
)
def test_a_broken_rule_is_named(overrides: list[str], severity: Severity, path: str) -> None:
    two = ["prefill.tensor_parallel_size=2", "prefill.pipeline_parallel_size=2"]
    wide = {
        "model.attention_heads=63": two[:1],
        "model.layers=1": two[1:],
        "hardware.gpus_per_node=1": two[:1],
    }
    more = wide.get(overrides[0], [])
    found = check(vllm_settings(*overrides, *more).trial_spec)
    assert (severity, path) in [(finding.severity, finding.path) for finding in found]
    before = [(finding.severity, finding.path) for finding in check(vllm_settings().trial_spec)]
    assert (severity, path) not in before
