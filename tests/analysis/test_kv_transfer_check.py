"""Test that KV transfers are judged by the engine's times and sizes, and by what UCX may use."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.run_evidence import LeftRun

from tune.analysis.run_checks.kv_transfers import allowed_ways

VLLM = ("stack=dynamo_vllm", "prefill=vllm", "decode=vllm")
FAST, TCP, SMALL = (133e6, 0.0417), (133e6, 0.51), (1e6, 0.01)
"""Size in bytes and time in s of a KV cache as measured between two H200 over NVLink and over TCP; a small
one."""
TEXTS = {
    "stack=dynamo_v1": """
# TYPE trtllm_kv_transfer_latency_seconds histogram
trtllm_kv_transfer_latency_seconds_bucket{{disaggregation_mode="decode",le="0.05",model_name="m"}} {count}
trtllm_kv_transfer_latency_seconds_sum{{disaggregation_mode="decode",model_name="m"}} {time_s}
trtllm_kv_transfer_latency_seconds_count{{disaggregation_mode="decode",model_name="m"}} {count}
# TYPE trtllm_kv_transfer_bytes histogram
trtllm_kv_transfer_bytes_sum{{disaggregation_mode="decode",model_name="m"}} {size_bytes}
trtllm_kv_transfer_bytes_count{{disaggregation_mode="decode",model_name="m"}} {count}
""",
    "stack=dynamo_vllm": """
# TYPE vllm:nixl_xfer_time_seconds histogram
vllm:nixl_xfer_time_seconds_count{{dynamo_component="backend",engine="0",model_name="m"}} {count}
vllm:nixl_xfer_time_seconds_sum{{dynamo_component="backend",engine="0",model_name="m"}} {time_s}
# TYPE vllm:nixl_bytes_transferred histogram
vllm:nixl_bytes_transferred_count{{dynamo_component="backend",engine="0",model_name="m"}} {count}
vllm:nixl_bytes_transferred_sum{{dynamo_component="backend",engine="0",model_name="m"}} {size_bytes}
# TYPE vllm:nixl_num_failed_transfers_total counter
vllm:nixl_num_failed_transfers_total{{dynamo_component="backend",engine="0",model_name="m"}} {failed}
""",
}


def run(
    root: Path,
    *workers: tuple[float, float],
    overrides: tuple[str, ...] = ("stack=dynamo_v1",),
    failed: int = 0,
    **left: object,
) -> LeftRun:
    """Return a run in which each decode worker received 100 caches, of which it had 10 before the probe."""
    scrapes = []
    for index, (size_bytes, time_s) in enumerate(workers):
        for after_s, count in ((-2.0, 10), (60.0, 110)):
            text = TEXTS[overrides[0]].format(
                count=count,
                time_s=count * time_s,
                size_bytes=count * size_bytes,
                failed=failed * (count > 10),
            )
            scrapes.append((after_s, f"decode_w{index}", text))
    return LeftRun(root, overrides=overrides, scrapes=scrapes, **left)


@pytest.mark.parametrize("overrides", [("stack=dynamo_v1",), VLLM], ids=["TensorRT-LLM", "vLLM"])
def test_rate_of_nvlink_is_as_meant(overrides: tuple[str, ...], tmp_path: Path) -> None:
    check = run(tmp_path, FAST, FAST, overrides=overrides, transport={}).check("kv_transfers")
    assert check.result == "as_meant"
    assert "200 transfers of 133 MB at 3.2 GB/s each" in check.found
    assert "UCX_TLS is not set, which allows NVLink, RDMA, TCP" in check.found
    assert check.evidence[0] == "raw/1/probe-1/metrics.jsonl"


@pytest.mark.parametrize("overrides", [("stack=dynamo_v1",), VLLM], ids=["TensorRT-LLM", "vLLM"])
def test_rate_that_only_tcp_explains_is_said_with_the_worker_and_its_node(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    """One worker fell back, whatever the settings allow."""
    check = run(tmp_path, FAST, TCP, overrides=overrides, transport={}).check("kv_transfers")
    assert check.result == "off"
    assert "0.26 GB/s each, least at decode_w1 on g04: as slow as TCP" in check.found


def test_transports_without_nvlink_and_rdma_are_off_also_where_no_rate_is_known(tmp_path: Path) -> None:
    check = LeftRun(tmp_path, transport={"UCX_TLS": "tcp,cuda_copy,self"}).check("kv_transfers")
    assert check.result == "off"
    assert check.found == "UCX_TLS=tcp,cuda_copy,self at prefill_w0 on g01 allows no way from GPU to GPU"
    assert check.evidence[1:] == ("raw/1/evidence.json", "plan/processes.json")


def test_variable_of_a_pool_goes_before_that_of_the_image(tmp_path: Path) -> None:
    own = ("stack=dynamo_v1", "+decode.env.UCX_TLS=tcp")
    check = LeftRun(tmp_path, overrides=own, transport={"UCX_TLS": "rc"}).check("kv_transfers")
    assert check.result == "off"
    assert check.found == "UCX_TLS=tcp at decode_w0 on g03 allows no way from GPU to GPU"


def test_variable_that_the_plan_gives_prefill_says_nothing_of_decode(tmp_path: Path) -> None:
    """The nodes are asked with the variables of a prefill worker."""
    own = ("stack=dynamo_v1", "+prefill.env.UCX_TLS=rc")
    check = LeftRun(tmp_path, overrides=own, transport={"UCX_TLS": "rc"}).check("kv_transfers")
    assert check.result == "not_counted"
    assert check.found.startswith("UCX_TLS=rc allows RDMA; ")


def test_nodes_that_differ_are_off(tmp_path: Path) -> None:
    mixed = {"UCX_TLS": "rc on g01, g02; nothing on g03, g04"}
    check = LeftRun(tmp_path, transport=mixed).check("kv_transfers")
    assert (check.result, check.found) == ("off", f"UCX_TLS differs between nodes: {mixed['UCX_TLS']}")


LOG = """\
[1796064764.153360] [vm:850  :0]     ucp_context.c:2510 UCX  INFO  Version 1.21.0 (loaded from /x/libucp.so)
[1796064764.931509] [vm:850  :0]      ucp_worker.c:1984 UCX  INFO    ucp_context_0 self cfg#1 {self}
[1796064765.274011] [vm:850  :0]      ucp_worker.c:1984 UCX  INFO    ucp_context_0 {peer} cfg#2 {lanes}
"""
"""What UCX 1.21.0 wrote under NIXL 1.1.0 between two H200."""

NVLINK = "rma_am(tcp/lo)  device(cuda_ipc/cuda)  am(tcp/lo cma/memory cuda_ipc/cuda)  ka(tcp/lo)"
ONLY_TCP = "rma_am(tcp/lo)  amo_am(tcp/lo)  am(tcp/lo tcp/eth0)  ka(tcp/lo)"


def with_logs(root: Path, **lanes: str) -> LeftRun:
    """Return a run at the rate of NVLink whose workers' logs state these lanes."""
    folder = root / "t0" / "raw" / "1" / "logs"
    folder.mkdir(parents=True)
    for name, text in lanes.items():
        said = LOG.format(self=NVLINK, peer="inter-node", lanes=text)
        (folder / f"g01_{name}.out").write_text(f"a line of the engine\n{said}")
    return run(root, FAST, transport={"UCX_TLS": "all"})


def test_log_of_ucx_shows_the_way_that_was_taken(tmp_path: Path) -> None:
    """A connection of a worker to itself shows nothing."""
    check = with_logs(tmp_path / "nvlink", prefill_w0=NVLINK, decode_w0=NVLINK).check("kv_transfers")
    assert check.result == "as_meant"
    assert check.found.startswith("UCX took NVLink, TCP at 2 of 4 workers; 100 transfers")
    assert check.evidence[1:] == ("raw/1/logs/g01_prefill_w0.out:4", "raw/1/logs/g01_decode_w0.out:4")
    check = with_logs(tmp_path / "tcp", prefill_w0=NVLINK, decode_w0=ONLY_TCP).check("kv_transfers")
    assert check.result == "off"
    assert check.found == "UCX of decode_w0 on g03 took TCP alone"
    rdma = ONLY_TCP.replace("am(tcp/lo tcp/eth0)", "rma(rc_mlx5/mlx5_0:1)")
    assert with_logs(tmp_path / "rdma", decode_w0=rdma).check("kv_transfers").result == "as_meant"


def test_way_through_the_memory_of_the_host_is_said(tmp_path: Path) -> None:
    through_host = {"UCX_TLS": "rc,cuda_copy", "UCX_IB_GPU_DIRECT_RDMA": "n"}
    check = LeftRun(tmp_path / "rc", transport=through_host).check("kv_transfers")
    assert check.result == "off"
    assert "through the memory of the host" in check.found
    nvlink = through_host | {"UCX_TLS": "rc,cuda_ipc"}
    check = run(tmp_path / "ipc", FAST, transport=nvlink).check("kv_transfers")
    assert check.result == "as_meant"
    assert "allows NVLink, RDMA; " in check.found


def test_failed_transfers_are_off(tmp_path: Path) -> None:
    check = run(tmp_path, FAST, overrides=VLLM, failed=3, transport={}).check("kv_transfers")
    assert check.result == "off"
    assert "3 KV transfers failed" in check.found


def test_missing_times_and_small_caches_are_not_counted(tmp_path: Path) -> None:
    check = LeftRun(tmp_path / "none").check("kv_transfers")
    assert check.result == "not_counted"
    assert check.found == (
        "which ways UCX may take is not known; times and sizes of the transfers are in no metric"
    )
    check = run(tmp_path / "small", SMALL, transport={}).check("kv_transfers")
    assert check.result == "not_counted"
    assert "100 transfers of 1 MB, too small for a rate" in check.found


def test_mock_engines_send_nothing(tmp_path: Path) -> None:
    check = LeftRun(tmp_path, overrides=("stack=dynamo_v1_mocker",)).check("kv_transfers")
    assert (check.result, check.found) == ("not_counted", "mock engines send no KV cache")


@pytest.mark.parametrize(
    ("ucx_tls", "ways"),
    [
        (None, "NVLink RDMA TCP"),
        ("all", "NVLink RDMA TCP"),
        ("cuda_ipc,cuda_copy,tcp,self,sm", "NVLink TCP"),
        ("rc_x, cuda", "NVLink RDMA"),
        ("dc_mlx5:aux,self", "RDMA"),
        ("tcp", "TCP"),
        ("self,sm", ""),
        ("^cuda_ipc,ib", "TCP"),
        ("^tcp", "NVLink RDMA"),
    ],
)
def test_ways_that_ucx_may_take(ucx_tls: str | None, ways: str) -> None:
    assert " ".join(allowed_ways(ucx_tls)) == ways
