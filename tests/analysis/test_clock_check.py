"""Test that a GPU slowed by heat or by the power brake is named, and that missing samples are stated."""

from __future__ import annotations

from pathlib import Path

from support.run_evidence import LeftRun

from tune.records.gpu_samples import GpuSample, GpuSamples, NodeSamples

NONE = {
    "hw_thermal_slowdown": 0.0,
    "sw_thermal_slowdown": 0.0,
    "hw_power_brake_slowdown": 0.0,
    "sw_power_cap": 0.0,
}


def nodes(limit_w: float = 1200.0, **slowed_s: float) -> NodeSamples:
    """Return two GPUs on each of two nodes; GPU 1 of g02 has the given limit and seconds."""
    usual = [
        GpuSample(index=index, power_limit_w=1200.0, default_power_limit_w=1200.0, slowed_s=NONE)
        for index in range(2)
    ]
    other = usual[1].model_copy(update={"power_limit_w": limit_w, "slowed_s": NONE | slowed_s})
    return {"g01": tuple(usual), "g02": (usual[0], other)}


def samples(before: NodeSamples, after: NodeSamples, **missing: str) -> GpuSamples:
    return GpuSamples(before=before, after=after, missing=missing)


def test_only_what_grew_during_the_probe_counts(tmp_path: Path) -> None:
    heated = nodes(hw_thermal_slowdown=500.0)
    check = LeftRun(tmp_path, gpus=samples(heated, heated)).check("clocks")
    assert check.result == "as_meant"
    assert check.found.startswith("4 GPUs: no clock was held down")


def test_heat_is_named_with_gpu_node_and_time(tmp_path: Path) -> None:
    gpus = samples(nodes(sw_thermal_slowdown=5.0), nodes(sw_thermal_slowdown=12.5))
    check = LeftRun(tmp_path, gpus=gpus).check("clocks")
    assert check.result == "off"
    assert check.found.startswith("GPU 1 of g02 was held down by heat, by the driver for 7.5 of ")
    assert check.evidence == ("raw/1/probe-1/gpus.json",)


def test_power_limit_below_the_default_is_off_and_work_at_the_limit_is_not(tmp_path: Path) -> None:
    lowered = nodes(limit_w=900.0)
    check = LeftRun(tmp_path / "limit", gpus=samples(lowered, lowered)).check("clocks")
    assert check.result == "off"
    assert check.found == "GPU 1 of g02 has a power limit of 900 W, by default 1200 W"
    capped = samples(nodes(), nodes(sw_power_cap=40.0))
    check = LeftRun(tmp_path / "capped", gpus=capped).check("clocks")
    assert check.result == "as_meant"
    assert "at the power limit for up to " in check.found


def test_missing_samples_are_said(tmp_path: Path) -> None:
    check = LeftRun(tmp_path / "none").check("clocks")
    assert (check.result, check.found) == ("not_counted", "no GPU was sampled")
    mock = LeftRun(tmp_path / "mock", overrides=("stack=dynamo_v1_mocker",)).check("clocks")
    assert (mock.result, mock.found) == ("not_counted", "workers have no GPUs")
    some = {"g01": nodes()["g01"]}
    check = LeftRun(tmp_path / "some", gpus=samples(some, some, g02="nvidia-smi: not found")).check("clocks")
    assert check.result == "not_counted"
    assert check.found.endswith("not counted: g02")
    check = LeftRun(tmp_path / "all", gpus=samples({}, {}, g01="no driver")).check("clocks")
    assert (check.result, check.found) == ("not_counted", "g01: no driver")
