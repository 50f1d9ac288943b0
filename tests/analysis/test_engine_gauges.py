"""Read batch and KV cache from /metrics as TensorRT-LLM, vLLM, SGLang and the mock engines write them.

Names and labels are those of a Dynamo worker, which passes on what its engine shows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.request_logs import make_log, spec

from tune.analysis.worker_utilisation import scraped_breakdown
from tune.records.scrapes import METRICS_FILE, MetricsWriter, parse_samples

DYNAMO = """
# HELP dynamo_component_inflight_requests Number of requests currently being processed by work handler
# TYPE dynamo_component_inflight_requests gauge
dynamo_component_inflight_requests{dynamo_component="backend",dynamo_endpoint="generate",model="m"} 50
# TYPE dynamo_component_requests_total counter
dynamo_component_requests_total{dynamo_component="backend",dynamo_endpoint="generate",model="m"} 400
"""
TEXTS = {
    "TensorRT-LLM": (
        "stack=dynamo_v1",
        """
# TYPE trtllm_num_requests_running gauge
trtllm_num_requests_running{engine_type="trtllm",model_name="m"} 40.0
# TYPE trtllm_num_requests_waiting gauge
trtllm_num_requests_waiting{engine_type="trtllm",model_name="m"} 3.0
# TYPE trtllm_kv_cache_utilization gauge
trtllm_kv_cache_utilization{engine_type="trtllm",model_name="m"} 0.62
# TYPE trtllm_kv_cache_hit_rate gauge
trtllm_kv_cache_hit_rate{engine_type="trtllm",model_name="m"} 0.38
""",
    ),
    "mock engine": (
        "stack=dynamo_v1_mocker",
        """
# TYPE trtllm:num_requests_running gauge
trtllm:num_requests_running{engine="0",model_name="m"} 40
# TYPE trtllm:kv_cache_usage_perc gauge
trtllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.62
""",
    ),
    "vLLM, two ranks": (
        "stack=dynamo_v1_mocker",
        """
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 25.0
vllm:num_requests_running{engine="1",model_name="m"} 15.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 9.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.7
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.54
""",
    ),
    "SGLang": (
        "stack=dynamo_v1_mocker",
        """
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="decode",model_name="m",pp_rank="0",tp_rank="0"} 40.0
# TYPE sglang:num_running_reqs_offline_batch gauge
sglang:num_running_reqs_offline_batch{engine_type="decode",model_name="m",pp_rank="0",tp_rank="0"} 1.0
# TYPE sglang:token_usage gauge
sglang:token_usage{engine_type="decode",model_name="m",pp_rank="0",tp_rank="0"} 0.62
# TYPE sglang:swa_token_usage gauge
sglang:swa_token_usage{engine_type="decode",model_name="m",pp_rank="0",tp_rank="0"} 0.1
""",
    ),
}


@pytest.mark.parametrize("engine", TEXTS)
def test_gauges_are_read_under_the_names_of_the_engine(engine: str, tmp_path: Path) -> None:
    stack, text = TEXTS[engine]
    log = replace(make_log(2), began_at_s=1000.0)
    log.scheduled_ns[1] = 2_000_000_000
    with (tmp_path / METRICS_FILE).open("w", encoding="utf-8") as file:
        writer = MetricsWriter(file)
        for at_s in (1000.0, 1002.0):
            writer.write("decode_w0", at_s, parse_samples(DYNAMO + text))
    use = scraped_breakdown(tmp_path, log, spec(stack))
    assert use is not None
    assert (use.decode_batch, use.kv_used_frac) == (pytest.approx(40.0), pytest.approx(0.62))
