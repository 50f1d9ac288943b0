"""Test every fault at every stage of a trial: its class, nothing lost, nothing counted twice, nothing left.

`make faults` runs all (marker `faults`) and writes docs/notes/fault-matrix.md; other runs take one of each
class.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.fault_cell import Cell, Stage
from support.fault_matrix import FAULTS, Fault, run_cell

pytestmark = pytest.mark.slow

REPRESENTATIVE = {
    ("driver killed", "probing"),
    ("worker killed", "probing"),
    ("client hung", "probing"),
    ("disk full", "recording"),
    ("controller restarted", "queued"),
}
"""One cell of each result, and those that no other test has."""

CELLS = [
    pytest.param(
        fault,
        stage,
        id=f"{fault.name}-{stage}".replace(" ", "_"),
        marks=[] if (fault.name, stage) in REPRESENTATIVE else [pytest.mark.faults],
    )
    for fault in FAULTS
    for stage in fault.expected
]


@pytest.mark.parametrize(("fault", "stage"), CELLS)
def test_a_fault_loses_nothing(fault: Fault, stage: Stage, make_cell: Callable[[], Cell]) -> None:
    run_cell(make_cell(), fault, stage)
