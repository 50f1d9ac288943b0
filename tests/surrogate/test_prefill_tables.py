"""Test the tables of prefill pools with a made-up simulation: what is simulated, and what stands in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from support.composed import composed

from tune.core.arrays import FloatArray
from tune.sim.worker_models import prefill_worker
from tune.spec.trial import TrialSpec
from tune.surrogate import prefill_tables
from tune.surrogate.prefill_latency import UTILISATION
from tune.surrogate.prefill_tables import PrefillTables

SETTINGS = composed()
BASE = SETTINGS.trial_spec
assert SETTINGS.cluster.calibration
WORKER = prefill_worker(BASE, SETTINGS.cluster.calibration, np.inf)


class Simulation:
    """Make up latency curves that name the number of prefill workers, and count the pools."""

    def __init__(self) -> None:
        self.simulated: list[int] = []

    def __call__(self, spec: TrialSpec, behind: Sequence[TrialSpec]) -> tuple[FloatArray, FloatArray]:
        workers = spec.split.prefill_workers
        self.simulated.append(workers)
        return np.full((1, 1, len(UTILISATION)), float(workers)), np.full((len(behind), 1, 1, 1), 2.0)


def tables_of(simulation: Simulation, counts: Sequence[int]) -> PrefillTables:
    """Return tables with one row a number of prefill workers, whose prompts take a second."""
    tables = PrefillTables(simulation, np.array([np.inf]))
    add(tables, counts)
    tables.begin(lambda done, total: None)
    return tables


def add(tables: PrefillTables, counts: Sequence[int], own_s: float = 1.0) -> None:
    specs = [
        BASE.model_copy(update={"split": BASE.split.model_copy(update={"prefill_workers": count})})
        for count in counts
    ]
    tables.add(specs, list(counts), [WORKER] * len(counts), np.full(len(counts), own_s))


def latencies(tables: PrefillTables, rows: Sequence[int]) -> list[float]:
    return tables.select(np.array(rows))[0].latency_s[:, 0, 0, 0].tolist()


def test_few_pools_are_all_simulated_first() -> None:
    simulation = Simulation()
    tables = tables_of(simulation, range(1, 9))
    assert sorted(simulation.simulated) == list(range(1, 9))
    assert tables.is_simulated(np.arange(8)).all()
    assert latencies(tables, [3, 0]) == [4.0, 1.0]


def test_others_look_like_the_most_similar_first_pool_until_they_are_in_focus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefill_tables, "MOST_SIMULATED_FIRST", 4)
    monkeypatch.setattr(prefill_tables, "SIMULATED_FIRST", 2)
    simulation = Simulation()
    tables = tables_of(simulation, [2, 3, 30, 40])
    add(tables, [5], own_s=3.0)
    assert len(simulation.simulated) == 4, "no more than MOST_SIMULATED_FIRST: all"
    few = tables_of(simulation := Simulation(), [2, 3, 30, 35, 40])
    assert sorted(simulation.simulated) == [2, 40], "the first row and the one that differs most"
    add(few, [36], own_s=3.0)
    assert latencies(few, [1, 2, 5]) == [2.0, 40.0, 3 * 40.0], "at the scale of the own steps"
    few.focus(np.array([1, 5]))
    assert latencies(few, [1, 2, 5]) == [3.0, 40.0, 36.0]
    assert few.is_simulated(np.arange(6)).tolist() == [True, True, False, False, True, True]
    few.focus(np.array([2]))
    assert latencies(few, [1, 2, 5]) == [2.0, 30.0, 3 * 40.0], "what was in focus before does not matter"
    few.focus(np.array([1]))
    assert sorted(simulation.simulated) == [2, 3, 30, 36, 40], "each is simulated once"
