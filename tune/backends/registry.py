"""List the backends that `cluster.kind` names: how each is built and checked, and its capabilities."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tune.backends.base import Backend, JobControl
from tune.checkpoint.checkpoint_files import check_checkpoint
from tune.core.threads import available_cores
from tune.deploy.checkpoint_facts import expected_checkpoint
from tune.deploy.node_rules import check_nodes
from tune.engines.check import check_local, check_simulated
from tune.engines.registry import engine_of
from tune.spec.backend_kinds import BACKEND_DECLARATIONS, BackendDeclaration, BackendName, Capabilities
from tune.spec.cluster_rules import check_cluster, check_written_paths
from tune.spec.findings import Finding, Severity
from tune.spec.settings import Settings
from tune.spec.split import place_workers

# Each backend is imported where it is built: the command line reads this table for every action.


@dataclass(frozen=True)
class BackendKind:
    """Hold one row of the table.

    Attributes
    ----------
    declaration
        What the backend declares about itself.
    build
        Returns the backend for composed settings. The other arguments are the number of trials that run at
        once, and a function that prints one line to the user.
    check
        Returns findings on the composed trial; quick, run before every trial and study.
    preflight
        Returns findings that take an answer of the cluster; for action=preflight.
    ask_node
        Returns what one node finds, for action=preflight where nothing else forbids the trial. The second
        argument is a function that prints one line to the user.
    bootstrap
        Makes the Python environment of the nodes and returns what is there; None where trials run with this
        interpreter. The second argument is a function that prints one line to the user.
    jobs
        Returns the control of jobs that go on without this process; None where there are none.
    """

    declaration: BackendDeclaration
    build: Callable[[Settings, int, Callable[[str], None]], Backend]
    check: Callable[[Settings], Sequence[Finding]]
    preflight: Callable[[Settings], Sequence[Finding]] = lambda settings: ()
    ask_node: Callable[[Settings, Callable[[str], None]], Sequence[Finding]] = lambda settings, say: ()
    bootstrap: Callable[[Settings, Callable[[str], None]], str] | None = None
    jobs: Callable[[], JobControl] | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Return what the backend can do and needs."""
        return self.declaration.capabilities


def _build_simulator(settings: Settings, at_once: int, say: Callable[[str], None]) -> Backend:
    """Return the simulator; say that its first use compiles it.

    It has a worker for each trial, as far as there are cores, and shares the cores among them. A single run
    without a search for its capacity takes less time than the start of a worker.
    """
    from tune.backends.simulated import SimulatorBackend  # noqa: PLC0415  (imports numba)
    from tune.core.jit import is_cold  # noqa: PLC0415
    from tune.sim.decode_loop import decode  # noqa: PLC0415

    if is_cold(decode):
        say("compiling the simulator: some ten seconds, on its first use only")
    assert settings.cluster.calibration is not None
    cores = settings.cluster.processes or available_cores()
    workers = min(cores, at_once)
    in_this_process = at_once == 1 and settings.load.mode != "capacity"
    return SimulatorBackend(
        settings.cluster.calibration, 0 if in_this_process else workers, threads=cores // workers
    )


def _build_local(settings: Settings, at_once: int, say: Callable[[str], None]) -> Backend:
    """Return the backend of this machine."""
    from tune.backends.local import LocalBackend  # noqa: PLC0415

    return LocalBackend(say, stop_s=settings.cluster.deadlines.stop_s)


def _build_slurm(settings: Settings, at_once: int, say: Callable[[str], None]) -> Backend:
    """Return the backend of the cluster that the settings describe."""
    from tune.backends.slurm.backend import SlurmBackend  # noqa: PLC0415
    from tune.backends.slurm.held_allocation import usable_allocation  # noqa: PLC0415

    held = usable_allocation(os.environ, settings.hardware.nodes, say)
    return SlurmBackend(settings.cluster, settings.study.trials_per_job, say, held=held)


def _check_simulator(settings: Settings) -> Sequence[Finding]:
    """Return findings on settings that the simulator ignores."""
    from tune.sim.kernel_steps import check_kernels  # noqa: PLC0415  (as the simulator, where it is used)

    spec, calibration = settings.trial_spec, settings.cluster.calibration
    return (*check_simulated(spec, calibration), *check_kernels(spec, calibration))


def _check_local(settings: Settings) -> Sequence[Finding]:
    """Return findings on trials that do not fit one machine."""
    return (*check_local(settings.trial_spec), *check_nodes(settings.trial_spec, settings.cluster))


def _preflight_local(settings: Settings) -> Sequence[Finding]:
    """Return findings on the GPUs of this machine, on its checkpoint, and on what an accuracy run needs."""
    from tune.backends.local_gpus import check_gpus  # noqa: PLC0415
    from tune.client.accuracy_needs import accuracy_findings  # noqa: PLC0415

    spec = settings.trial_spec
    accuracy = accuracy_findings(settings.cluster.tokenizer_path) if spec.load.accuracy else ()
    if not engine_of(spec).computes_tokens:
        return accuracy
    placed = place_workers(spec.hardware, spec.prefill, spec.decode, spec.split)
    expected = expected_checkpoint(spec, settings.cluster)
    checkpoint = check_checkpoint(expected) if expected else ()
    gpus = check_gpus(gpu for worker in placed or () for gpu in worker.gpus)
    return (*gpus, *checkpoint, *accuracy)


def _check_slurm(settings: Settings) -> Sequence[Finding]:
    """Return findings on the cluster's facts."""
    placeholders: Severity = "warning" if settings.action == "plan" else "error"
    facts, home = settings.cluster, str(Path.home())
    groups = {name: getattr(settings, name) for name in (*settings.split.roles, "aggregated", "stack")}
    groups = {name: group for name, group in groups.items() if group is not None}
    return (
        *check_cluster(facts, home, placeholders=placeholders),
        *check_written_paths(groups, facts, home, placeholders=placeholders),
        *check_nodes(settings.trial_spec, facts),
    )


def _preflight_slurm(settings: Settings) -> Sequence[Finding]:
    """Return findings that take an answer of the cluster."""
    from tune.backends.slurm.preflight import check_slurm  # noqa: PLC0415

    return check_slurm(settings.cluster, settings.trial_spec)


def _ask_slurm_node(settings: Settings, say: Callable[[str], None]) -> Sequence[Finding]:
    """Return what one node of the cluster finds."""
    from tune.backends.slurm.node_preflight import check_on_node  # noqa: PLC0415

    return check_on_node(settings, say)


def _bootstrap_slurm(settings: Settings, say: Callable[[str], None]) -> str:
    """Make the environment of the cluster's nodes."""
    from tune.backends.slurm.bootstrap import make_node_environment  # noqa: PLC0415

    return make_node_environment(settings, say)


def _slurm_jobs() -> JobControl:
    """Return the control of Slurm jobs."""
    from tune.backends.slurm.job_control import SlurmJobControl  # noqa: PLC0415

    return SlurmJobControl()


BACKENDS: Mapping[BackendName, BackendKind] = {
    "sim": BackendKind(BACKEND_DECLARATIONS["sim"], build=_build_simulator, check=_check_simulator),
    "local": BackendKind(
        BACKEND_DECLARATIONS["local"], build=_build_local, check=_check_local, preflight=_preflight_local
    ),
    "slurm": BackendKind(
        BACKEND_DECLARATIONS["slurm"],
        build=_build_slurm,
        check=_check_slurm,
        preflight=_preflight_slurm,
        ask_node=_ask_slurm_node,
        bootstrap=_bootstrap_slurm,
        jobs=_slurm_jobs,
    ),
}
"""Backends by their name, the setting `cluster.kind`."""
