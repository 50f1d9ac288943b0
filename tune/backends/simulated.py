"""Run trials on the simulated rack, in worker processes."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tune.backends.activity import Activity
from tune.backends.base import AttemptState, Backend
from tune.backends.simulated_attempt import simulate_attempt
from tune.backends.simulator_worker import AttemptEnd, SimulatorWorker
from tune.core.jit import is_cold
from tune.errors import TuneError
from tune.records.outcome import Probe
from tune.sim.aggregated_loop import serve_aggregated
from tune.sim.closed_loop import serve_closed_loop
from tune.sim.decode_loop import decode
from tune.sim.simulator import simulate_serving
from tune.spec.backend_kinds import SIMULATOR
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec


class SimulatorBackend(Backend):
    """Run attempts in up to `workers` processes of `threads` threads each.

    Without workers an attempt runs in this process, at once, on submit.
    """

    capabilities = SIMULATOR

    def __init__(self, calibration: Calibration, workers: int, threads: int = 1) -> None:
        self._calibration = calibration
        self._max_workers, self._threads = workers, threads
        self._workers: list[SimulatorWorker] = []
        self._waiting: deque[tuple[str, TrialSpec]] = deque()
        self._ended: dict[str, AttemptEnd | None] = {}
        self._activities: defaultdict[str, list[Activity]] = defaultdict(list)

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        """Hand the attempt to a worker, or simulate it at once without one."""
        handle = str(attempt)
        if not self._max_workers:
            report = self._activities[handle].append
            self._ended[handle] = AttemptEnd(
                simulate_attempt(spec, self._calibration, attempt, report, threads=self._threads)
            )
            return handle
        if self._max_workers > 1 and is_cold(_serving_loop(spec)):
            self._compile(spec)
        self._ended.pop(handle, None)  # the folder of an attempt that left nothing is used again
        self._waiting.append((handle, spec))
        self._advance()
        return handle

    def _compile(self, spec: TrialSpec) -> None:
        """Compile the serving loops once, in this process, instead of in every worker at the same time.

        A trial that cannot be simulated compiles nothing: its attempt records why.
        """
        load = spec.load.sample(1)
        with suppress(TuneError):
            simulate_serving(spec.model_copy(update={"load": load}), self._calibration)

    def poll(self, handle: str) -> AttemptState:
        """Return the state of the attempt; hand waiting attempts to idle workers."""
        self._advance()
        if handle in self._ended:
            return "ended"
        return "waiting" if any(waiting == handle for waiting, _ in self._waiting) else "running"

    def activities(self, handle: str) -> Sequence[Activity]:
        """Return the steps of the attempt since the last call."""
        return self._activities.pop(handle, [])

    def probes(self, handle: str) -> Sequence[Probe] | None:
        """Return the probes that the worker measured, once; None where the worker was killed."""
        end, self._ended[handle] = self._ended[handle], None
        if end and end.error:
            raise end.error
        return end.probes if end else None

    def cancel(self, handle: str) -> None:
        """Drop an attempt that waits, or kill the worker that runs it: such an attempt is lost."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] != handle)
        for worker in [worker for worker in self._workers if worker.handle == handle]:
            self._lose(worker)
        self._ended.setdefault(handle, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the workers: what they have not ended is lost and runs again when the study is resumed."""
        self._waiting.clear()
        while self._workers:
            self._lose(self._workers[-1])

    def _advance(self) -> None:
        """Take what the workers have sent, and give them what waits."""
        for worker in [worker for worker in self._workers if worker.handle]:
            self._receive(worker)
        while self._waiting:
            idle = next((worker for worker in self._workers if not worker.handle), None)
            if idle is None:
                if len(self._workers) == self._max_workers:
                    return
                idle = SimulatorWorker(self._calibration, self._threads)
                self._workers.append(idle)
            idle.begin(*self._waiting.popleft())

    def _receive(self, worker: SimulatorWorker) -> None:
        """Take the messages of a worker; one that was killed loses its attempt."""
        assert worker.handle
        try:
            for step, end in worker.messages():
                if step:
                    self._activities[worker.handle].append(step)
                if end:
                    self._ended[worker.handle], worker.handle = end, None
                    return
        except EOFError:
            self._lose(worker)

    def _lose(self, worker: SimulatorWorker) -> None:
        """Kill a worker; the attempt that it runs is lost."""
        worker.kill()
        self._workers.remove(worker)
        if worker.handle:
            self._ended[worker.handle] = None


def _serving_loop(spec: TrialSpec) -> Callable[..., object]:
    """Return the compiled loop that simulates a trial."""
    if spec.load.is_closed_loop:
        return serve_closed_loop
    return serve_aggregated if spec.split.aggregated_workers else decode
