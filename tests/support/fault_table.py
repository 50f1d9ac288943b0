"""Write docs/notes/fault-matrix.md from the results of the fault matrix: fault_table.py JUNIT_XML ..."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

if __name__ == "__main__":  # as a program it is not started where `support` is found
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.fault_cell import STAGES
from support.fault_matrix import FAULTS
from support.fault_patches import PATCHES
from support.simulated_faults import KILLS, MOMENTS, SIMULATED_FAULTS
from tune.core.version import __version__

PAGE = Path(__file__).parents[2] / "docs" / "notes" / "fault-matrix.md"

_INTRODUCTION = """\
# The fault matrix

Each fault meets a trial at each stage at which it can, on eighteen nodes of real Slurm with accounting on one
machine. Slurm, orchestrator, LoadGen and load client are real; frontend, workers and services are stand-ins
that answer at once (`tests/support/fake_dynamo.py`). `make faults` runs all and writes this page.

A cell holds where the trial is measured by the command that meets the fault or, where the fault ends that, by
the next one; the attempts have the class that the cell names; every attempt is counted once, with the
GPU-hours of its own record; Slurm ran one job for each attempt, and its accounting has the same time, up to
60 s of start and end; and no job, no process on a node, no process of the driver and no temporary file is
left.

| stage | meaning |
|---|---|
| submitting | sbatch runs |
| queued | the job waits for nodes |
| starting | workers read their weights |
| warm-up | its last requests are not answered to the end |
| probing | LoadGen issues queries |
| draining | the client has ended, and workers still hold requests |
| recording | the attempt has ended, and the driver has not collected it |

`none`: the trial is measured as without the fault. `refused`: the command that meets it ends with a message,
and the next one goes on. `infrastructure`, `harness`: the class of the attempt that it meets, which another
attempt follows ([reference/failures.md](../reference/failures.md)). The others have tests of their own:
`configuration` in `tests/cli/test_local_failures.py`, `measurement` in `tests/study/test_retries.py`.
**Bold**: the cell did not hold. A dash: the fault cannot be there.
"""

_SIMULATED = """
## On the simulated rack

A study of three trials meets each fault at three moments of it. A cell holds where the command that
meets the fault ends as the cell says, and the next one completes the study: outcomes on record are unchanged
byte for byte, the ranking is that of a study that nothing met, byte for byte, and nothing is left.
"""

_PATCHED = """
## What the matrix catches

Mended faults come back, each by a patch of a copy of the tree (`tests/support/fault_patches.py`). A row holds
where the cell that is meant for the fault fails, with the words that name it. Without a patch these cells
hold: they are in the table above.
"""

_EXITS = {None: "killed", 0: "goes on", 2: "refused", 3: "stops"}


def page(reports: Sequence[Path]) -> str:
    """Return the page from JUnit reports of pytest; of a case that ran twice, the later report counts."""
    held = {name: passed for report in reports for name, passed in _results(report).items()}
    day = f"{datetime.now(UTC):%Y-%m-%d}, tune {__version__}"
    lines = [_INTRODUCTION, *_matrix(held, day), _SIMULATED, *_simulated(held, day), _PATCHED]
    lines += _patched(held, day)
    return "\n".join(lines) + "\n"


def _results(report: Path) -> dict[str, bool]:
    """Return by name, such as test_a_fault_loses_nothing[...], whether each case that ran has passed."""
    return {
        case.get("name", ""): case.find("failure") is case.find("error") is None
        for case in ET.parse(report).getroot().iter("testcase")
        if case.find("skipped") is None
    }


def _matrix(held: Mapping[str, bool], day: str) -> list[str]:
    """Return the table of the matrix on Slurm."""
    rows, count = [], [0, 0]
    for fault in FAULTS:
        cells = [
            _cell(
                held,
                f"test_a_fault_loses_nothing[{_id(fault.name, stage)}]",
                fault.expected.get(stage),
                count,
            )
            for stage in STAGES
        ]
        rows.append(f"| {fault.name} | {' | '.join(cells)} |")
    head = [f"| fault | {' | '.join(STAGES)} |", "|---" * (len(STAGES) + 1) + "|"]
    return [f"{day}: {count[0]} of {count[1]} cells hold.", "", *head, *rows]


def _simulated(held: Mapping[str, bool], day: str) -> list[str]:
    """Return the table of the simulated rack."""
    rows, count = [], [0, 0]
    for fault in SIMULATED_FAULTS:
        cells = [
            _cell(
                held,
                f"test_a_fault_changes_no_result[{_id(fault.name, moment)}]",
                _EXITS[fault.exit_code],
                count,
            )
            for moment in MOMENTS
        ]
        rows.append(f"| {fault.name} | {' | '.join(cells)} |")
    kills = [
        held.get(f"test_a_kill_at_a_random_point_changes_no_result[{number}]") for number in range(KILLS)
    ]
    head = [f"| fault | {' | '.join(MOMENTS)} |", "|---" * (len(MOMENTS) + 1) + "|"]
    sums = (
        f"{day}: {count[0]} of {count[1]} cells hold, and {kills.count(True)} of {KILLS} kills of the driver"
    )
    return [f"{sums} at random points.", "", *head, *rows]


def _patched(held: Mapping[str, bool], day: str) -> list[str]:
    """Return the table of faults that were brought back."""
    rows, count = [], [0, 0]
    for patch in PATCHES:
        name = f"test_a_fault_that_comes_back_is_named[{_id(patch.name)}]"
        named = _cell(held, name, "named", count)
        rows.append(f"| {patch.name} | {patch.fault}, {patch.stage} | {named} |")
    return [
        f"{day}: {count[0]} of {count[1]} are named.",
        "",
        "| fault that comes back | cell | |",
        "|---|---|---|",
        *rows,
    ]


def _id(*words: str) -> str:
    """Return the id of a case."""
    return "-".join(words).replace(" ", "_")


def _cell(held: Mapping[str, bool], name: str, expected: str | None, count: list[int]) -> str:
    """Return what a table says of a case, and add to `count`: those that held, those that ran."""
    if expected is None or name not in held:
        return "–"
    count[0] += held[name]
    count[1] += 1
    return expected if held[name] else f"**{expected}**"


if __name__ == "__main__":
    PAGE.write_text(page([Path(report) for report in sys.argv[1:]]), encoding="utf-8")
