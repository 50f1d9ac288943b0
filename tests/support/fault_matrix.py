"""State what has to come of each fault at each stage of a trial on the tests' Slurm, and check it."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from support import fault_injections as inject
from support.fault_cell import RUNNING, STAGES, Cell, Stage, stage
from support.fault_injections import Inject, Prepare, allow_writing
from support.slurm_rack import commands_with
from support.slurm_runs import attempts, job_ids
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import read_attempt

Expected = Literal["none", "refused", "infrastructure", "harness"]
"""Class of what the fault does to an attempt. `none`: the trial is measured as without it. `refused`: it only
ends the command that meets it."""

MEASURED = "40 requests; expected at least 459 for a verdict on a p99"
"""What is said of a measurement that nothing met: a cell has few requests."""

OVERHEAD_S = 60.0
"""Seconds for which a job may hold its nodes before and after its attempt: its batch step starts, and ends
what it started; on a node that is lost, after Slurm's own deadlines."""

BEFORE_DRAINING: tuple[Stage, ...] = ("submitting", "queued", "starting", "warm-up", "probing")


def at(stages: tuple[Stage, ...], expected: Expected) -> dict[Stage, Expected]:
    return dict.fromkeys(stages, expected)


def _nothing(cell: Cell) -> None:
    """Do nothing: no preparation is needed, or nothing is left to undo."""


@dataclass(frozen=True)
class Fault:
    """Describe a fault and what has to come of it.

    Attributes
    ----------
    name, inject
        What it is called, and what injects it while the trial is held at a stage.
    expected
        The stages at which it can be, with its class there.
    commands
        Number of commands, the one that meets it included, after which the trial is measured.
    rule
        Name of the rule that the evidence of its attempt has to name; None where any may.
    unseen
        Stages at which another sign comes before that of the rule.
    blames
        Nodes that the record of its attempt has to name, so that further attempts avoid them.
    words
        Further words of the command.
    prepare, undo
        What is done before the first command, and once the command that meets the fault has ended.
    """

    name: str
    inject: Inject
    expected: Mapping[Stage, Expected]
    commands: int = 1
    rule: str | None = None
    unseen: tuple[Stage, ...] = ()
    blames: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    prepare: Prepare = _nothing
    undo: Prepare = _nothing


_HELD_LONGER = (
    *("cluster.deadlines.stop_s=150.0", "cluster.deadlines.quiet_s=150.0"),
    "load.response_timeout_s=150.0",
)
"""A trial stays at its stage until Slurm has looked at the time limit."""

_STOPPED_SOON = ("cluster.deadlines.stop_s=4.0",)
"""What does not end is killed soon."""

_QUIET = ("cluster.deadlines.quiet_s=10.0", *_STOPPED_SOON)
"""What hangs is found soon."""

_POLICY = (
    "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or"
)
_SUBMITTED = (
    'out=$($REAL "$@"); echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv '
    'operation" >&2; exit 1'
)

KILL, STOP = signal.SIGKILL, signal.SIGSTOP

FAULTS = (
    Fault("driver killed", inject.kill_driver, at(STAGES, "none"), commands=2),
    Fault("job cancelled", inject.cancel, at(("queued", *RUNNING), "infrastructure"), 2, "cancelled"),
    Fault(
        "time limit",
        inject.shorten_time_limit_of_run,
        at(RUNNING, "infrastructure"),
        commands=2,
        rule="time_limit",
        words=_HELD_LONGER,
    ),
    Fault("preempted", inject.preempt, at(RUNNING, "infrastructure"), rule="preempted"),
    Fault(
        "node lost",
        inject.lose_node,
        at(RUNNING, "infrastructure"),
        rule="node_failed",
        words=_STOPPED_SOON,
        unseen=("warm-up", "probing", "draining"),  # a worker does not answer before Slurm misses its node
        blames=("g02",),
    ),
    Fault(
        "worker killed, then its node lost",
        inject.kill_worker_then_node,
        at(RUNNING, "infrastructure"),
        words=_STOPPED_SOON,
        blames=("g02",),
    ),
    Fault("worker killed", inject.signal_first(inject.WORKER, KILL), at(RUNNING, "infrastructure")),
    Fault(
        "worker hung",
        inject.signal_first(inject.WORKER, STOP),
        at(RUNNING, "infrastructure"),
        words=_QUIET,
    ),
    Fault("frontend killed", inject.signal_first(inject.FRONTEND, KILL), at(RUNNING, "infrastructure")),
    Fault("discovery killed", inject.signal_first(inject.ETCD, KILL), at(RUNNING, "infrastructure")),
    Fault("message service killed", inject.signal_first(inject.NATS, KILL), at(RUNNING, "infrastructure")),
    Fault("client killed", inject.signal_first(inject.CLIENT, KILL), at(("probing",), "infrastructure")),
    Fault(
        "client hung",
        inject.signal_first(inject.CLIENT, STOP),
        at(("probing",), "infrastructure"),
        words=_QUIET,
    ),
    Fault("orchestrator killed", inject.kill_orchestrator, at(RUNNING, "infrastructure")),
    Fault("logs truncated", inject.truncate_logs, at(RUNNING, "none")),
    Fault("logs garbled", inject.garble_logs, at(RUNNING, "none")),
    Fault(
        "disk full",
        inject.fill_disk,
        at(STAGES, "infrastructure")
        | at(("submitting", "recording"), "refused")
        | at(("probing",), "harness"),
        commands=2,
    ),
    Fault(
        "folder read-only",
        inject.make_read_only,
        at(STAGES, "infrastructure") | at(("recording",), "refused"),
        commands=2,
    ),
    Fault("driver's clock ahead", inject.jump(7200), at(STAGES, "none"), prepare=inject.fake_clock_of_driver),
    Fault("driver's clock back", inject.jump(-7200), at(STAGES, "none"), prepare=inject.fake_clock_of_driver),
    Fault(
        "nodes' clock ahead",
        inject.jump(7200),
        at(("starting", "warm-up", "draining"), "none") | {"probing": "infrastructure"},
        prepare=inject.fake_clock_of_nodes,
    ),
    Fault(
        "nodes' clock back",
        inject.jump(-7200),
        at(("starting", "warm-up", "draining"), "none") | {"probing": "infrastructure"},
        prepare=inject.fake_clock_of_nodes,
    ),
    Fault(
        "sbatch: controller busy",
        inject.refuse("Batch job submission failed: Slurm temporarily unable to accept job, please retry"),
        at(("submitting",), "none"),
    ),
    Fault("sbatch: answer lost", inject.answer_sbatch(_SUBMITTED), at(("submitting",), "none")),
    Fault(
        "sbatch: submit limit",
        inject.refuse(f"QOSMaxSubmitJobPerUserLimit\\nsbatch: error: {_POLICY} time limits)"),
        at(("submitting",), "none"),
    ),
    Fault("sbatch: unnamed policy", inject.refuse(f"{_POLICY} time limits)"), at(("submitting",), "none")),
    Fault("sbatch: no answer", inject.answer_sbatch("exit 0"), at(("submitting",), "none")),
    Fault(
        "sbatch: invalid account",
        inject.refuse(
            "Batch job submission failed: Invalid account or account/partition combination specified"
        ),
        at(("submitting",), "refused"),
        commands=2,
    ),
    Fault(
        "sbatch: partition closed",
        inject.close_partition,
        at(("submitting",), "refused"),
        commands=2,
        undo=inject.open_partition,
    ),
    Fault("sbatch killed", inject.answer_sbatch("kill -9 $$"), at(("submitting",), "refused"), 2),
    Fault("accounting down", inject.stop_accounting, at(STAGES, "none")),
    Fault(
        "controller restarted",
        inject.restart_controller,
        at(STAGES, "none") | {"starting": "infrastructure", "warm-up": "infrastructure"},
        rule="step_refused",
    ),
    Fault("squeue hangs", inject.hang_squeue, at(("submitting", "queued", *RUNNING), "none")),
    Fault("second driver", inject.start_second_driver, at(STAGES, "none")),
)


def repair(cell: Cell, fault: Fault) -> None:
    """Take away what a fault left in the way."""
    (cell.folder / "filler").unlink(missing_ok=True)
    allow_writing(cell.folder)
    (cell.programs / "squeue").unlink(missing_ok=True)
    cell.rack.start_daemons()
    fault.undo(cell)


def run_cell(cell: Cell, fault: Fault, name: Stage) -> None:
    """Run the trial with the fault at the stage, then its command again until it is measured; check all."""
    cell.words = (*cell.words, *fault.words)
    fault.prepare(cell)
    with stage(cell, name) as driver:
        fault.inject(cell, driver)
    code, commands = cell.end(driver) if driver.returncode is None else driver.returncode, 1
    repair(cell, fault)
    while code and commands < 4:
        code, commands = cell.end(cell.command()), commands + 1
    said = "\n".join(cell.said)
    assert code == 0, f"not measured after {commands} commands\n{said}"
    assert commands == fault.commands, (
        f"measured after {commands} commands, expected {fault.commands}\n{said}"
    )
    rule = None if name in fault.unseen else fault.rule
    check_records(cell, fault.expected[name], rule, said)
    if fault.blames:
        record = read_attempt(attempts(cell.folder)[0])
        assert record is not None
        assert record.failed_nodes == fault.blames, f"the node that was lost is on record\n{said}"
    check_nothing_left(cell)


def check_records(cell: Cell, expected: Expected, rule: str | None, said: str) -> None:
    """Assert that the trial is measured, that attempts have the class, and that nothing is lost or twice."""
    (outcome,) = cell.outcomes
    assert outcome.status == "measured", said
    reasons = [probe.reason for probe in outcome.probes]
    assert reasons == [MEASURED], f"measured with {reasons}\n{said}"
    records = [record for attempt in attempts(cell.folder) if (record := read_attempt(attempt))]
    causes = [attempt.cause for attempt in outcome.attempts]
    assert "Traceback" not in said, said
    if expected in ("infrastructure", "harness"):
        assert causes == [expected, None], f"causes {causes}\n{said}"
        evidence = outcome.attempts[0].evidence
        assert rule in (None, evidence and evidence.rule), f"evidence {evidence}\n{said}"
    else:
        assert causes == [None], f"causes {causes}\n{said}"
    assert len(outcome.attempts) == len(records), "every attempt is counted once"
    paid = sum(record.occupied_s for record in records) * outcome.gpus / 3600
    assert abs(outcome.gpu_hours - paid) < 1e-9 * (1 + paid), "the GPU-hours are those of all attempts"
    check_held_time(cell, records)
    json.loads((cell.study.root / "study.json").read_text())


def check_held_time(cell: Cell, records: list[AttemptRecord]) -> None:
    """Assert that Slurm had one job for each attempt, and that each attempt counts the time of its job."""
    cell.rack.wait(cell.rack.all_ended, 60, "end of all jobs")
    cell.rack.wait(
        lambda: None not in cell.rack.occupied_s(cell.folder).values(), 90, "end in the accounting"
    )
    occupied_s = cell.rack.occupied_s(cell.folder)
    recorded, occupied_s = job_ids(cell.folder), dict[str, float | None]()

    def accounted() -> bool:
        occupied_s.update(cell.rack.occupied_s(cell.folder))
        return None not in map(occupied_s.get, recorded)

    cell.rack.wait(accounted, 90, "end in the accounting")
    assert sorted(occupied_s) == sorted(recorded), f"jobs {sorted(occupied_s)} ran, {recorded} are on record"
    assert len(recorded) == len(records), f"jobs {recorded}, attempts {len(records)}"
    for job, record in zip(recorded, records, strict=True):
        outside_s = (occupied_s[job] or 0) - record.occupied_s
        lost = (record.error or "").startswith("lost:")  # then its time is that of the job
        assert -2 <= outside_s <= (2 if lost else OVERHEAD_S), (
            f"job {job} held its nodes {outside_s:.0f} s more than counted"
        )


def check_nothing_left(cell: Cell) -> None:
    """Assert that no process and no job is left, and no folder but those of the records."""
    cell.rack.wait(lambda: not cell.rack.visitors(), 60, "nodes without a process")
    assert not commands_with(str(cell.folder)), "no process is left"
    left = [
        str(path.relative_to(cell.folder)) for path in cell.folder.glob("runs/**/*.tmp") if path.is_file()
    ]
    assert not left, f"temporary files are left: {left}"
