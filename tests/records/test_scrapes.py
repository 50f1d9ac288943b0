from __future__ import annotations

import math
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.errors import ResumableError
from tune.records.scrapes import MetricsWriter, parse_samples, read_metrics, total

TEXT = """\
# HELP dynamo_component_requests_total Total number of requests
# TYPE dynamo_component_requests_total counter
dynamo_component_requests_total{dynamo_component="prefill",dynamo_endpoint="generate"} 12
dynamo_component_requests_total{dynamo_component="prefill",dynamo_endpoint="clear \\"all\\""} 3 1700000000000
duration_seconds_bucket{le="+Inf"} 4
duration_seconds_sum 1.5e-3
uptime 7.25
broken{ 4
unset NaN
endless +Inf
text abc
"""

NAMES = st.sampled_from(["a", "b", 'c{x="1"}', 'c{x="2"}'])
ROUNDS = st.lists(
    st.tuples(st.sampled_from(["p", "q"]), st.dictionaries(NAMES, st.floats(-1e9, 1e9))), max_size=12
)


def test_samples_of_the_text_format_are_parsed() -> None:
    found = parse_samples(TEXT)
    assert sorted(found.values()) == [0.0015, 3.0, 7.25, 12.0]
    assert total(found, "dynamo_component_requests_total") == 15.0
    assert total(found, "dynamo_component_requests_total", dynamo_endpoint="generate") == 12.0
    assert total(found, "dynamo_component_requests_total", dynamo_endpoint='clear \\"all\\"') == 3.0
    assert total(found, "dynamo_component_requests", dynamo_endpoint="generate") is None
    assert total(found, "uptime", dynamo_endpoint="generate") is None


@given(st.text())
def test_any_text_parses_without_an_error(text: str) -> None:
    assert all(math.isfinite(value) for value in parse_samples(text).values())


@given(ROUNDS)
def test_written_scrapes_read_back(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[tuple[str, dict[str, float]]]
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.jsonl"
    expected: dict[str, dict[str, float]] = {}
    with path.open("w", encoding="utf-8") as file:
        writer = MetricsWriter(file)
        states = []
        for number, (process, samples) in enumerate(rounds):
            writer.write(process, float(number), samples)
            expected[process] = expected.get(process, {}) | samples
            states.append((process, float(number), expected[process]))
    assert [(s.process, s.at_s, s.samples) for s in read_metrics(path)] == states


def test_only_changed_samples_are_written() -> None:
    file = StringIO()
    writer = MetricsWriter(file)
    writer.write("p", 1.0, {"a": 1.0, "b": 2.0})
    writer.write("p", 3.0, {"a": 1.0, "b": 5.0})
    assert file.getvalue().splitlines()[1] == '{"at_s":3.0,"process":"p","new":[],"changed":{"1":5.0}}'


def test_missed_scrape_is_empty_and_the_next_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with path.open("w", encoding="utf-8") as file:
        writer = MetricsWriter(file)
        writer.write("p", 1.0, {"a": 1.0, "b": 2.0})
        writer.write_missed("p", 2.0, "refused")
        writer.write("p", 3.0, {"a": 4.0, "b": 2.0})
    assert [dict(scrape.samples) for scrape in read_metrics(path)] == [
        {"a": 1.0, "b": 2.0},
        {},
        {"a": 4.0, "b": 2.0},
    ]


def test_torn_last_line_is_skipped_and_other_torn_lines_raise(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with path.open("w", encoding="utf-8") as file:
        writer = MetricsWriter(file)
        for number in range(3):
            writer.write("p", float(number), {"a": float(number)})
    whole = path.read_text()
    path.write_text(whole[:-9])
    assert len(read_metrics(path)) == 2
    path.write_text(whole[9:])
    with pytest.raises(ResumableError, match=r"metrics\.jsonl"):
        read_metrics(path)
    with pytest.raises(ResumableError, match=r"metrics\.jsonl"):
        read_metrics(tmp_path / "none" / "metrics.jsonl")
