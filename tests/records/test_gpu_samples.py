"""Test that what nodes print of their GPUs becomes samples, and that a silent node is named with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune.errors import ResumableError
from tune.records.gpu_samples import (
    GPUS_FILE,
    GpuSamples,
    parse_gpu_lines,
    read_gpu_samples,
    write_gpu_samples,
)

H200 = "0, 700.00, 700.00, 0, 1500000, 0, 8211016"
"""An H200 of driver 580.159.04 after 8 s of dense products, with 1.5 s of heat beside."""


def test_figures_of_each_gpu_are_read_in_watts_and_seconds() -> None:
    text = f"gpu g01 {H200}\nsrun: hello\ngpu g01 1{H200[1:]}\ngpu g02 {H200}\n"
    samples, missing = parse_gpu_lines(text, ("g01", "g02", "g02"))
    assert missing == {}
    assert [(host, len(gpus)) for host, gpus in samples.items()] == [("g01", 2), ("g02", 1)]
    gpu = samples["g01"][1]
    assert (gpu.index, gpu.power_limit_w, gpu.default_power_limit_w) == (1, 700.0, 700.0)
    assert gpu.slowed_s["sw_power_cap"] == pytest.approx(8.211016)
    assert gpu.slowed_s["sw_thermal_slowdown"] == pytest.approx(1.5)


def test_node_that_cannot_say_is_named() -> None:
    refused = 'Field "clocks_event_reasons_counters.sw_power_cap" is not a valid field to query.'
    text = f"gpu g01 {H200}\ngpu g02 {refused}\ngpu g04 0, 700.00, 700.00, [N/A], 0, 0, 0\n"
    samples, missing = parse_gpu_lines(text, ("g01", "g02", "g03", "g04"))
    assert list(samples) == ["g01"]
    assert missing["g02"] == refused
    assert missing["g03"] == "it printed nothing"
    assert "[N/A]" in missing["g04"]


def test_one_machine_has_one_name() -> None:
    samples, missing = parse_gpu_lines(f"gpu box-7 {H200}\n", ("localhost",))
    assert (list(samples), missing) == (["localhost"], {})
    samples, missing = parse_gpu_lines("gpu box-7 bash: nvidia-smi: not found\n", ("localhost",))
    assert (samples, missing) == ({}, {"localhost": "bash: nvidia-smi: not found"})


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_gpu_samples(tmp_path) is None
    before, _ = parse_gpu_lines(f"gpu g01 {H200}\n", ("g01",))
    samples = GpuSamples(before=before, after=before, missing={"g02": "it printed nothing"})
    write_gpu_samples(tmp_path, samples)
    assert read_gpu_samples(tmp_path) == samples
    (tmp_path / GPUS_FILE).write_text("{")
    with pytest.raises(ResumableError, match=GPUS_FILE):
        read_gpu_samples(tmp_path)
