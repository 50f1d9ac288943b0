"""Provide a rack with accounting on a small disk, and a cell of the fault matrix there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.fault_cell import Cell
from support.fault_injections import allow_writing
from support.required import cannot, cannot_run_slurm
from support.slurm_rack import NoSlurm, SlurmRack, slurm_rack

DISK_BYTES = 96 << 20

MakeCell = Callable[..., Cell]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Mount a small disk, before the nodes get mount tables of their own."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)], check=False
    )
    if mounted.returncode:
        cannot("only root may mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def fault_rack(disk: Path) -> Iterator[SlurmRack]:
    with ExitStack() as stack:
        try:
            yield stack.enter_context(slurm_rack(accounting=True))
        except NoSlurm as reason:
            cannot_run_slurm(reason)


@pytest.fixture
def make_cell(disk: Path, fault_rack: SlurmRack) -> Iterator[MakeCell]:
    """Return what makes the test's cell; afterwards nothing of it is left, and all nodes are idle."""
    folder = disk / f"cell-{os.urandom(4).hex()}"
    cells: list[Cell] = []

    def make(tree: Path | None = None, patience_s: float = 240) -> Cell:
        folder.mkdir()
        cells.append(Cell(fault_rack, folder, tree, patience_s))
        return cells[0]

    yield make
    for cell in cells:
        cell.release()
        for driver in cell.drivers:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
    allow_writing(folder)
    fault_rack.restore()
    subprocess.run(["rm", "-rf", str(folder)], check=True)
