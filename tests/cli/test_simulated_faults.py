"""Test every fault at every moment of a study on the simulated rack: no trial is lost, changed or left over.

`make faults` runs them; test_interrupted_study.py has one kill in every run of the slow tests.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.simulated_faults import (
    KILLS,
    MOMENTS,
    SIMULATED_FAULTS,
    Moment,
    SimulatedCell,
    SimulatedFault,
    kill_at_random,
    run_simulated_cell,
)

pytestmark = [pytest.mark.slow, pytest.mark.faults]

DISK_BYTES = 256 << 20
CELLS = [
    pytest.param(fault, moment, id=f"{fault.name}-{moment}".replace(" ", "_"))
    for fault in SIMULATED_FAULTS
    for moment in MOMENTS
]


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[SimulatedCell]:
    """Run the study on a small disk."""
    options = ("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(tmp_path))
    if subprocess.run(["mount", *options], check=False).returncode:
        pytest.skip("only root may mount a disk")
    yield SimulatedCell(tmp_path)
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, bytes]:
    """Return how long the study takes that nothing meets, in seconds, and its ranking."""
    cell, began_s = SimulatedCell(tmp_path_factory.mktemp("unbroken")), 0.0
    for _ in range(2):  # the first one compiles, and fills the cache
        subprocess.run(["rm", "-rf", str(cell.folder / "runs"), str(cell.folder / "reports")], check=True)
        began_s = time.monotonic()
        assert cell.end(cell.command()) == 0, cell.said
    return time.monotonic() - began_s, cell.ranking()


@pytest.mark.parametrize(("fault", "moment"), CELLS)
def test_a_fault_changes_no_result(
    fault: SimulatedFault, moment: Moment, cell: SimulatedCell, unbroken: tuple[float, bytes]
) -> None:
    run_simulated_cell(cell, fault, moment, unbroken[1])


@pytest.mark.parametrize("number", range(KILLS))
def test_a_kill_at_a_random_point_changes_no_result(
    number: int, cell: SimulatedCell, unbroken: tuple[float, bytes]
) -> None:
    kill_at_random(cell, number, *unbroken)
