"""Test traces: their formats, their arrivals, and the rate that they are scaled to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loads import make_load

from tune.errors import ConfigurationError
from tune.spec.dataset import Dataset
from tune.spec.load import Load, Trace
from tune.workload.arrivals import arrivals_ns
from tune.workload.length_files import read_rows
from tune.workload.lengths import request_lengths

MOONCAKE = """\
{"timestamp": 0, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}
{"timestamp": 3000, "input_length": 6472, "output_length": 26, "hash_ids": [46]}

{"timestamp": 4500, "input_length": 40, "output_length": 5, "hash_ids": []}
"""
AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,6955,52
2023-11-16 18:17:08.4799600,40,5
2023-11-16 18:17:06.9799600,6472,26
"""
AZURE_2024 = AZURE.replace("99600,", "99600+00:00,")
BURST_GPT = "Timestamp,Model,Request tokens,Response tokens\n5,a,6955,52\n8,b,6472,26\n9.5,a,40,5\n"
NO_HEADER = "0,6955,52\n3000,6472,26\n4500,40,5\n"

Write = Callable[[str], Path]
MS, S = Trace(time_unit="ms"), Trace(time_unit="s")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "trace"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "trace"),
    [(MOONCAKE, MS), (AZURE, MS), (AZURE_2024, S), (BURST_GPT, S), (NO_HEADER, MS)],
    ids=["mooncake", "azure", "azure 2024", "burstgpt", "no header"],
)
def test_public_traces_are_read_in_order_of_time(write: Write, text: str, trace: Trace) -> None:
    rows = read_rows(write(text), trace)
    assert rows.time_s is not None
    assert rows.time_s.tolist() == pytest.approx([0.0, 3.0, 4.5], abs=1e-5)
    assert rows.inputs.tolist() == [6955, 6472, 40]
    assert rows.outputs.tolist() == [52, 26, 5]
    assert rows.mean_qps == pytest.approx(2 / 4.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("input,output\n1,2\n", "line 2: no column timestamp in input, output"),
        ("1,2\n", r"line 1: found 2 numbers and no header; expected .* timestamp,input_tokens,output_tokens"),
        ("timestamp,input,output\n0,1,2\nsoon,1,2\n", "line 3: timestamp is 'soon'; expected a number"),
        ("timestamp,input,output\n0,1,2\n0,3,4\n", "all 2 arrivals are at one time"),
        ('{"timestamp": 0, "input_length": 1}\n', "line 1: no column output_tokens"),
        ('{"timestamp": 0, "input_length": 0, "output_length": 1}\n', "line 1: input_tokens is 0"),
        ('{"timestamp": 0, "input_length": 1.5, "output_length": 1}\n', "line 1: input_tokens is 1.5"),
        ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n{"a":\n', "line 2: not JSON"),
        ('{"a": 1}\n[1]\n', "line 1: no column"),
        ("{", "line 1: not JSON"),
    ],
)
def test_a_bad_trace_is_refused_with_its_line(write: Write, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_rows(write(text), MS)


def test_a_file_that_changes_is_read_again(write: Write) -> None:
    first = read_rows(write("1,2\n"), None)
    assert len(read_rows(write("1,2\n3,4\n"), None).inputs) == len(first.inputs) + 1


def load_of(path: Path, samples: int, **changes: Any) -> Load:
    dataset = Dataset(
        name="t",
        samples=samples,
        longest_prompt_tokens=10**6,
        longest_answer_tokens=10**6,
        inputs=None,
        outputs=None,
        path=str(path),
    )
    plain = make_load(min_queries=1, min_duration_s=1e-9, **changes)
    return plain.model_copy(update={"dataset": dataset, "trace": MS})


@settings(max_examples=20)
@given(
    gaps_ms=st.lists(st.integers(0, 10_000), min_size=1, max_size=30),
    scale=st.floats(0.01, 100),
    passes=st.integers(1, 3),
)
def test_a_trace_is_replayed_at_its_own_or_a_scaled_rate(
    tmp_path_factory: pytest.TempPathFactory, gaps_ms: list[int], scale: float, passes: int
) -> None:
    gaps_ms[-1] += 1
    times_ms = np.cumsum([7, *gaps_ms])
    path = tmp_path_factory.getbasetemp() / "trace.jsonl"
    lines = [
        json.dumps({"timestamp": int(t), "input_length": 10 + i, "output_length": 1 + i})
        for i, t in enumerate(times_ms)
    ]
    path.write_text("\n".join(lines))
    rows, count = read_rows(path, MS), len(times_ms)
    own = load_of(path, count, target_qps=rows.mean_qps)
    assert arrivals_ns(own).tolist() == ((times_ms - 7) * 10**6).tolist()
    scaled = load_of(path, count, target_qps=rows.mean_qps * scale)
    scaled = scaled.model_copy(update={"min_queries": passes * count})
    arrivals = arrivals_ns(scaled)
    assert len(arrivals) == passes * count
    assert arrivals[:count] == pytest.approx((times_ms - 7) * 1e6 / scale, abs=1)
    assert arrivals[::count] == pytest.approx(
        np.arange(passes) * count / scaled.target_qps * 1e9, rel=1e-6, abs=2
    )
    prompts, answers = request_lengths(scaled, len(arrivals))
    assert prompts.tolist() == passes * [10 + i for i in range(count)]
    assert np.array_equal(prompts, answers + 9)


def test_a_short_run_is_the_beginning_of_the_trace(write: Write) -> None:
    path = write(MOONCAKE)
    load = load_of(path, 3, target_qps=2 / 4.5).sample(2)
    assert arrivals_ns(load).tolist() == [0, 3 * 10**9]
    assert request_lengths(load, 2)[0].tolist() == [6955, 6472]


def test_records_of_poisson_arrivals_have_no_trace() -> None:
    load = make_load()
    assert "trace" not in load.model_dump(mode="json")
    with pytest.raises(ValueError, match="a trace has its arrivals in a file"):
        Load.model_validate(load.model_dump() | {"trace": MS})
