"""Run trials on the simulated rack: each attempt is one call in a pool of worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from tune.analysis.measure import measure_attempt
from tune.backends.base import AttemptState, Backend
from tune.backends.simulated_probes import simulate_probes
from tune.core.jit import is_cold
from tune.errors import TuneError
from tune.records.attempt_record import AttemptRecord, Phases
from tune.records.folders import write_attempt
from tune.records.outcome import Probe
from tune.sim.decode_loop import decode
from tune.sim.simulator import simulate
from tune.spec.backend_kinds import SIMULATOR
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec


class SimulatorBackend(Backend):
    """Run attempts in `processes` worker processes; with one, in this process, at once, on submit."""

    capabilities = SIMULATOR

    def __init__(self, calibration: Calibration, processes: int) -> None:
        self._calibration = calibration
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None
        self._attempts: dict[str, Future[list[Probe]]] = {}

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        """Hand the attempt to the pool, or simulate it at once without one."""
        arguments = (spec.model_dump_json(), self._calibration.model_dump_json(), str(attempt))
        if self._pool is None:
            future: Future[list[Probe]] = Future()
            future.set_result(simulate_attempt(*arguments))
        else:
            if is_cold(decode):
                self._compile(spec)
            future = self._submit(arguments)
        self._attempts[str(attempt)] = future
        return str(attempt)

    def _compile(self, spec: TrialSpec) -> None:
        """Compile the serving loops once, in this process, instead of in every worker at the same time.

        A trial that cannot be simulated compiles nothing: its attempt records why.
        """
        short = {
            "min_queries": 1,
            "min_duration_s": 1 / spec.load.target_qps,
            "concatenate_permutation": False,
        }
        load = spec.load.model_copy(update=short)
        with suppress(TuneError):
            simulate(spec.model_copy(update={"load": load}), self._calibration)

    def _submit(self, arguments: tuple[str, str, str]) -> Future[list[Probe]]:
        """Hand one attempt to the pool, and to a new pool where a worker was killed.

        Ctrl-C is held back meanwhile: the pool knows a worker only after it has started it.
        """
        assert self._pool is not None
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(simulate_attempt, *arguments)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = self._new_pool()
            return self._pool.submit(simulate_attempt, *arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _new_pool(self) -> ProcessPoolExecutor:
        """Return a pool without running workers; it starts them when attempts are submitted."""
        return ProcessPoolExecutor(
            self._processes, multiprocessing.get_context("spawn"), initializer=_begin_worker
        )

    def poll(self, handle: str) -> AttemptState:
        """Return the state of the attempt in the pool."""
        future = self._attempts[handle]
        if future.done():
            return "ended"
        return "running" if future.running() else "waiting"

    def probes(self, handle: str) -> list[Probe] | None:
        """Return the probes that the worker measured; None where the worker was killed."""
        future = self._attempts[handle]
        return None if isinstance(future.exception(), BrokenProcessPool) else future.result()

    def cancel(self, handle: str) -> None:
        """Cancel an attempt that no worker has begun; a simulation that runs is left to end."""
        self._attempts[handle].cancel()

    def __enter__(self) -> Self:
        if self._processes > 1:
            self._pool = self._new_pool()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def simulate_attempt(spec_json: str, calibration_json: str, attempt: str) -> list[Probe]:
    """Simulate one attempt, write the records of a deployment into the folder `attempt`, and measure them.

    Parameters
    ----------
    spec_json, calibration_json
        The trial and the calibration as JSON, so that another process can run the function.
    attempt
        Path of the attempt's folder.

    Returns
    -------
    list[Probe]
        The measured probes; [] where the simulation failed, with the error on record.

    Notes
    -----
    Times on record are those that a real deployment would hold its GPUs for: bring-up and run, by the
    simulated clock.
    """
    spec = TrialSpec.model_validate_json(spec_json)
    calibration = Calibration.model_validate_json(calibration_json)
    started = datetime.now(UTC)
    phases, error = Phases(), None
    try:
        phases = simulate_probes(spec, calibration, Path(attempt))
    except TuneError as expected:
        error = str(expected)
    except Exception:  # an error in the simulator fails its trial, with its trace, not the whole study
        error = traceback.format_exc()
    held_s = phases.bring_up_s + phases.probes_s + phases.drain_s
    write_attempt(
        Path(attempt),
        AttemptRecord(
            started_at=started.isoformat(),
            ended_at=(started + timedelta(seconds=held_s)).isoformat(),
            held_s=held_s,
            error=error,
            cause="infrastructure" if error else None,
            phases=phases,
        ),
    )
    return [] if error else measure_attempt(Path(attempt), spec)


def _begin_worker() -> None:
    """Leave Ctrl-C to the process that owns the study, and end with that process, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the parent process, then end this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
