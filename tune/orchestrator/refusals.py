"""Detect that an engine rejects its configuration while its process goes on.

A launcher may outlive its engine: the leader of an MPI job waits for ranks that are gone, a shell swallows an
exit code. Then no process ends, and only the log says why nothing happens.
Source: TensorRT-LLM, tensorrt_llm/llmapi/trtllm-llmapi-launch (mid 2025), which runs the command in a
subshell and waits for its leader node.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AttemptFailed, last_lines
from tune.orchestrator.managed_process import ManagedProcess

REFUSAL_QUIET_S = 20.0
"""Time in which the log of a worker does not grow before it is read, in seconds: an engine that goes on after
words such as "out of memory" is not taken for one that stopped, and a refusal is noticed within a minute."""


@dataclass
class _LogState:
    """Hold the size of a log, since when it has that size, and whether it was read at that size."""

    size: int
    since_s: float
    was_read: bool = False


class RefusalWatch:
    """Watch the logs of the workers of `deployment`. Times are seconds of `clock`."""

    def __init__(self, deployment: Deployment, clock: Callable[[], float] = time.monotonic) -> None:
        self._deployment, self._clock = deployment, clock
        self._states: dict[str, _LogState] = {}

    def require_none(self) -> None:
        """Raise AttemptFailed where a worker whose log no longer grows has rejected its configuration."""
        for worker in self._deployment.running_workers():
            if self._is_due(worker) and self._deployment.rejects_configuration(worker):
                raise AttemptFailed(
                    f"{worker.name} rejects its configuration and does not end; the last lines of its log:\n"
                    f"{last_lines(worker.log)}",
                    "configuration",
                )

    def _is_due(self, worker: ManagedProcess) -> bool:
        """Return, once for each size of a log, whether it has not grown for REFUSAL_QUIET_S."""
        now_s, size = self._clock(), worker.log.stat().st_size if worker.log.exists() else 0
        state = self._states.get(worker.name)
        if state is None or state.size != size:
            self._states[worker.name] = _LogState(size, now_s)
            return False
        if state.was_read or now_s - state.since_s <= REFUSAL_QUIET_S:
            return False
        state.was_read = True
        return True
