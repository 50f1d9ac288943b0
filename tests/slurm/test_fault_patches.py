"""Test that a mended fault that comes back fails the cell of the fault matrix that is meant for it.

Without a patch these cells hold: `test_faults.py` runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.fault_cell import Cell
from support.fault_matrix import FAULTS, run_cell
from support.fault_patches import PATCHES, Patch

pytestmark = [pytest.mark.slow, pytest.mark.faults]

PATIENCE_S = 100.0
"""How long a command of a patched tune is waited for; without a patch each of these cells ends sooner."""


@pytest.mark.parametrize("patch", PATCHES, ids=[patch.name.replace(" ", "_") for patch in PATCHES])
def test_a_fault_that_comes_back_is_named(
    patch: Patch, make_cell: Callable[..., Cell], tmp_path: Path
) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == patch.fault)
    cell = make_cell(patch.apply(tmp_path), PATIENCE_S)
    with pytest.raises((AssertionError, TimeoutError), match=patch.says):
        run_cell(cell, fault, patch.stage)
