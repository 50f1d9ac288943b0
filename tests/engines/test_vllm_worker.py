"""Compare what is started of vLLM with the parser of vLLM 0.23.0, whose usage is recorded in data/vllm."""

from __future__ import annotations

import json

import pytest
from support.vllm_arguments import vllm_parser
from support.vllm_trials import vllm_settings

from tune.deploy.plan import render
from tune.manifest.process import PLAN_DIR, Process
from tune.spec.settings import Settings


def processes(settings: Settings) -> dict[str, Process]:
    plan = render(settings.trial_spec, settings.cluster)
    return {process.name: process for process in plan.processes}


def words_of_vllm(worker: Process) -> list[str]:
    """Return the arguments that Dynamo's parser leaves to vLLM's."""
    words = list(worker.argv[worker.argv.index("dynamo.vllm") + 1 :])
    mode = words.index("--disaggregation-mode")
    del words[mode : mode + 2]
    return words


def test_the_parser_of_vllm_accepts_every_argument_and_reads_every_setting() -> None:
    settings = vllm_settings(
        *("prefill.cudagraph_capture_sizes=[8,1,2]", "prefill.block_size=32", "decode.block_size=32"),
        *("prefill.async_scheduling=false", "prefill.stream_interval=4", "+prefill.extra.seed=7"),
        *("+prefill.extra.enable_expert_parallel=true", "+prefill.extra.compilation_config.mode=3"),
    )
    read = vllm_parser().parse_args(words_of_vllm(processes(settings)["prefill_w0"]))
    assert read.model == f"{PLAN_DIR}/model"
    assert read.served_model_name == ["llama-70b-24layers"]
    assert (read.tensor_parallel_size, read.max_num_seqs, read.max_num_batched_tokens) == ("1", "256", "8192")
    assert (read.max_model_len, read.gpu_memory_utilization, read.block_size) == ("16384", "0.85", "32")
    assert (read.enable_prefix_caching, read.enable_chunked_prefill, read.enforce_eager) == (
        False,
        True,
        False,
    )
    assert (read.async_scheduling, read.stream_interval, read.load_format) == (False, "4", "dummy")
    assert read.cudagraph_capture_sizes == ["1", "2", "8"]
    assert (read.seed, read.enable_expert_parallel) == ("7", True)
    assert json.loads(read.compilation_config) == {"mode": 3}
    assert read.enable_logging_iteration_details is True
    assert json.loads(read.kv_transfer_config)["kv_connector"] == "NixlConnector"


@pytest.mark.parametrize("words", [["--max-num-batchd-tokens", "5"], ["--kv-cache-dtype", "fp4"]])
def test_the_parser_refuses_what_vllm_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        vllm_parser().parse_args(words)
    assert "__main__.py: error: " in capsys.readouterr().err


def test_each_worker_has_its_gpu_and_its_ports() -> None:
    settings = vllm_settings("hardware=h200_dgx", "split.prefill_workers=2", "decode.tensor_parallel_size=4")
    workers = [one for name, one in processes(settings).items() if name.startswith(("prefill", "decode"))]
    assert [one.env["CUDA_VISIBLE_DEVICES"] for one in workers] == ["0", "1", "2,3,4,5"]
    assert [one.env["DYN_SYSTEM_PORT"] for one in workers] == ["9100", "9101", "9102"]
    assert [one.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] for one in workers] == ["10100", "10101", "10102"]
    assert [port.number for one in workers for port in one.listens] == [9100, 10100, 9101, 10101, 9102, 10102]


def test_one_node_needs_no_etcd_and_several_do() -> None:
    one = processes(vllm_settings())
    assert "etcd" not in one
    assert one["frontend"].env["DYN_DISCOVERY_BACKEND"] == "file"
    several = processes(vllm_settings("hardware.nodes=2", "split.decode_workers=2", "cluster=slurm"))
    assert several["decode_w1"].env["DYN_DISCOVERY_BACKEND"] == "etcd"
    assert "nats" not in several
    assert several["decode_w1"].node_index == 1
    assert next(iter(several)) == "etcd"


def test_random_weights_have_the_sizes_of_the_model_and_a_word_for_every_token() -> None:
    settings = vllm_settings()
    files = render(settings.trial_spec, settings.cluster).files
    config = json.loads(files["model/config.json"])
    assert (config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]) == (
        8192,
        24,
        28672,
    )
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (64, 8, 128)
    vocabulary = json.loads(files["model/tokenizer.json"])["model"]["vocab"]
    assert len(vocabulary) + 2 == config["vocab_size"] == 128256
    given = vllm_settings(
        "prefill.load_format=auto", "decode.load_format=auto", "cluster.model_path=/models/x"
    )
    plan = render(given.trial_spec, given.cluster)
    assert not any(name.startswith("model/") for name in plan.files)
    worker = next(process for process in plan.processes if process.name == "decode_w0")
    assert worker.argv[worker.argv.index("--model") + 1] == "/models/x"
