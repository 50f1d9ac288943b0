"""Test how each engine starts workers that prefill and decode."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
import yaml
from support.composed import changed, composed
from support.vllm_arguments import vllm_parser

from tune.deploy.plan import LaunchPlan, render
from tune.engines.check import check
from tune.engines.kv_capacity import kv_capacity_tokens
from tune.manifest.argument_check import ARGUMENT_CHECK_FILE
from tune.manifest.process import Process
from tune.spec.findings import only_errors
from tune.spec.settings import Settings

STACKS = {
    "dynamo_v0": (),
    "dynamo_v04": (),
    "dynamo_v07": (),
    "dynamo_v1": (),
    "dynamo_v1_mocker": ("cluster=local",),
    "dynamo_vllm": ("aggregated=vllm",),
}
COMPONENTS = {
    "dynamo_v0": "tensorrt_llm",
    "dynamo_v04": "tensorrt_llm",
    "dynamo_v07": "backend,tensorrt_llm",
    "dynamo_v1": "backend,tensorrt_llm",
    "dynamo_v1_mocker": "backend,tensorrt_llm",
    "dynamo_vllm": "backend",
}


def aggregated(stack: str, *changes: str) -> Settings:
    settings = composed("cluster=slurm", "split=aggregated", f"stack={stack}", *STACKS[stack])
    return changed(settings, *changes)


def plan_of(stack: str, *changes: str) -> LaunchPlan:
    settings = aggregated(stack, *changes)
    return render(settings.trial_spec, settings.cluster)


def workers_of(plan: LaunchPlan) -> list[Process]:
    return [process for process in plan.processes if process.role == "aggregated"]


@pytest.mark.parametrize("stack", STACKS)
def test_all_workers_are_of_one_pool_and_are_counted_under_its_name(stack: str) -> None:
    plan = plan_of(stack, "split.aggregated_workers=5")
    assert [process.name for process in workers_of(plan)] == [f"aggregated_w{index}" for index in range(5)]
    assert not [process for process in plan.processes if process.role in ("prefill", "decode")]
    expected = plan.readiness_command[plan.readiness_command.index("--expect") :]
    assert expected == ("--expect", f"{COMPONENTS[stack]}=5")
    assert plan == plan_of(stack, "split.aggregated_workers=5")


@pytest.mark.parametrize("stack", STACKS)
def test_no_word_or_variable_is_of_another_pool(stack: str) -> None:
    plan = plan_of(stack)
    for worker in workers_of(plan):
        words = " ".join([*worker.argv, *worker.env])
        assert not re.search(
            r"prefill(?!ed)|decode|NIXL|transfer-config|strategy", words.replace("enable-chunked-prefill", "")
        ), words
    assert not {"prefill.yaml", "decode.yaml", "prefill_step_times.npz"} & {*plan.files, *plan.tables}


@pytest.mark.parametrize("stack", ["dynamo_v0", "dynamo_v1"])
def test_the_file_of_a_pool_has_its_settings_and_no_transceiver(stack: str) -> None:
    plan = plan_of(stack, "aggregated.max_num_tokens=2048", "+aggregated.extra.print_iter_log=true")
    keys = yaml.safe_load(plan.files["aggregated.yaml"])
    assert (keys["max_num_tokens"], keys["enable_chunked_prefill"]) == (2048, True)
    assert keys["print_iter_log"] is True
    assert keys.get("cache_transceiver_config") is None
    assert all("${PLAN_DIR}/aggregated.yaml" in worker.argv for worker in workers_of(plan))


@pytest.mark.parametrize("stack", STACKS)
def test_the_software_of_the_nodes_checks_the_command_line_of_the_pool(stack: str) -> None:
    check = json.loads(plan_of(stack).files[ARGUMENT_CHECK_FILE])
    assert [command["name"] for command in check["commands"]] == [
        "command line of frontend",
        "command line of aggregated",
    ]
    files = [file["file"] for file in check["files"]]
    assert files == (["aggregated.yaml"] if "vllm" not in stack and "mocker" not in stack else [])


def test_the_parser_of_vllm_accepts_every_argument() -> None:
    changes = ("aggregated.max_num_batched_tokens=2048", "+aggregated.extra.seed=7")
    (worker, *_) = workers_of(plan_of("dynamo_vllm", *changes))
    read = vllm_parser().parse_args(worker.argv[worker.argv.index("dynamo.vllm") + 1 :])
    assert (read.max_num_batched_tokens, read.max_num_seqs, read.seed) == ("2048", "256", "7")
    assert read.kv_transfer_config is None
    assert [port.number for port in worker.listens] == [9100]


def test_a_mock_engine_reads_prompts_and_makes_answers_by_one_table() -> None:
    settings = aggregated("dynamo_v1_mocker", "aggregated.max_num_tokens=2048")
    plan = render(settings.trial_spec, settings.cluster)
    (worker, *_) = workers_of(plan)
    flags = dict(zip(worker.argv, (*worker.argv[1:], ""), strict=True))
    assert (flags["--disaggregation-mode"], flags["--max-num-batched-tokens"]) == ("agg", "2048")
    assert flags["--planner-profile-data"].endswith("/aggregated_step_times.npz")
    blocks = kv_capacity_tokens(settings.trial_spec, "aggregated") // 32
    assert flags["--num-gpu-blocks-override"] == str(blocks)
    table = np.load(io.BytesIO(plan.tables["aggregated_step_times.npz"]))
    pools = composed("cluster=local", "stack=dynamo_v1_mocker")
    both = render(pools.trial_spec, pools.cluster).tables
    prefill = np.load(io.BytesIO(both["prefill_step_times.npz"]))
    slope, prefill_slope = (
        np.diff(one["prefill_ttft_ms"])[0] / np.diff(one["prefill_isl"])[0] for one in (table, prefill)
    )
    assert slope == pytest.approx(prefill_slope), "prompts are read as by a prefill worker"
    assert (np.diff(table["decode_itl"], axis=0) >= 0).all()


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ("aggregated.max_num_batched_tokens=128", "aggregated.max_num_batched_tokens"),
        ("aggregated.tensor_parallel_size=8", "aggregated.tensor_parallel_size"),
        ("aggregated.max_model_len=100", "aggregated.max_model_len"),
        ("aggregated.gpu_memory_utilization=0.05", "aggregated.tensor_parallel_size"),
        ("aggregated.cudagraph_capture_sizes=[]", "aggregated.cudagraph_capture_sizes"),
        ("stack.system_port=8000", "stack"),
    ],
)
def test_vllm_refuses(change: str, path: str) -> None:

    assert path in {error.path for error in only_errors(check(aggregated("dynamo_vllm", change).trial_spec))}
