"""The arithmetic of the benchmark on the lengths of short probes."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tune.probe.sequential import late_requests
from tune.results.requests import RequestLog
from tune.spec.trial import TrialSpec


@pytest.fixture
def short_probes(monkeypatch: pytest.MonkeyPatch, root: Path) -> Any:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("short_probes")


def asked(prompts: np.ndarray, late: np.ndarray, spec: TrialSpec) -> RequestLog:
    """A record of requests with these prompts, of which those that are `late` are so by TTFT."""
    n, ttft_s = len(prompts), spec.slo.ttft_p99_s
    assert ttft_s is not None
    first_ns = np.where(late, 2 * ttft_s, ttft_s / 2) * 1e9
    none = np.zeros(n, np.int64)
    times = (none, first_ns.astype(np.int64), (first_ns + 1e9).astype(np.int64))
    log = RequestLog(*times, prompts, none + 100, none, none, np.full(n, "", dtype="<U1"))
    assert int(late_requests(log, spec.slo)[0].sum()) == int(late.sum())
    return log


def test_a_probe_of_the_whole_dataset_is_weighed_as_it_is(short_probes: Any, make_spec: Any) -> None:
    spec = make_spec()
    prompts, _ = short_probes.dataset_lengths(spec.load.dataset)
    late = np.arange(len(prompts)) % 7 == 0
    assert short_probes.weighed_late(asked(prompts, late, spec), spec) == pytest.approx(late.sum())


def test_late_requests_count_for_the_stratum_that_is_asked_too_seldom(
    short_probes: Any, make_spec: Any
) -> None:
    """A tenth of the dataset, and of that half the longest prompts, all late."""
    spec = make_spec()
    prompts = np.sort(short_probes.dataset_lengths(spec.load.dataset)[0])[::10]
    longest = prompts > np.quantile(prompts, 0.9)
    kept = ~longest | (np.cumsum(longest) % 2 == 0)
    log = asked(prompts[kept], longest[kept], spec)
    assert int(longest[kept].sum()) < 0.06 * len(log)
    assert short_probes.weighed_late(log, spec) == pytest.approx(0.1 * len(log), rel=0.03)


def test_lengths_are_compared_with_the_dataset(short_probes: Any, make_spec: Any) -> None:
    dataset = make_spec().load.dataset
    prompts, answers = short_probes.dataset_lengths(dataset)
    log = asked(np.round(prompts * 1.1).astype(np.int64), prompts < 0, make_spec())
    more = short_probes.more_than_dataset(replace(log, output_tokens=answers), dataset)
    assert more[0] == pytest.approx(10, abs=0.01)
    assert more[1] > 1
    assert more[2] == pytest.approx(0)


def test_what_goes_with_the_lengths_is_found_whatever_the_configuration(short_probes: Any) -> None:
    draws = np.random.default_rng(0)
    found = []
    for bias in (-0.1, 0.2):
        more = draws.normal(0, 2, (50, 3))
        more -= more.mean(axis=0)
        expected = [short_probes.Expected(each, np.exp(bias), np.exp(bias - each[0] / 200)) for each in more]
        verdicts = [short_probes.Verdict(rate, 0.5, 0.5, 1.5) for rate in short_probes.RATES]
        found.append(short_probes.Found("", expected, verdicts))
    _, prompts, *_, other = short_probes.told_of_forecasts(found)
    assert prompts.split()[-2:] == ["-1.00", "-0.50"]
    assert other.endswith("-10.0, +20.0")
    everything = short_probes.told_of_verdicts(found)[-2]
    assert everything.split() == ["all", "100%", "100.0%", "0.0%", "14", "of", "14,", "0"]
