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
from tune.orchestrator.failures import AttemptFailed, lines_from
from tune.orchestrator.managed_process import ManagedProcess

REFUSAL_QUIET_S = 20.0
"""Time in which a worker logs nothing new before its log is read, in seconds: an engine that goes on after
words such as "out of memory" is not taken for one that stopped, and a refusal is noticed within a minute."""


@dataclass
class _LogState:
    """Hold the number of new lines in a log, since when it has so many, and whether it was read then."""

    new_lines: int
    since_s: float
    was_read: bool = False


class RefusalWatch:
    """Watch the logs of the workers of `deployment`. Times are seconds of `clock`."""

    def __init__(self, deployment: Deployment, clock: Callable[[], float] = time.monotonic) -> None:
        self._deployment, self._clock = deployment, clock
        self._states: dict[str, _LogState] = {}

    def require_none(self) -> None:
        """Raise AttemptFailed where a worker that logs nothing new has rejected its configuration."""
        for worker in self._deployment.running_workers():
            evidence = self._deployment.evidence(worker) if self._is_due(worker) else None
            if evidence and evidence.cause == "configuration":
                raise AttemptFailed(
                    f"{worker.name} rejects its configuration and does not end; its log says:\n"
                    f"{lines_from(worker.log, evidence.line or 1)}",
                    evidence=evidence,
                )

    def _is_due(self, worker: ManagedProcess) -> bool:
        """Return, once after each new line of a log, whether REFUSAL_QUIET_S have passed since."""
        now_s, new_lines = self._clock(), self._deployment.new_lines_of(worker)
        state = self._states.get(worker.name)
        if state is None or state.new_lines != new_lines:
            self._states[worker.name] = _LogState(new_lines, now_s)
            return False
        if state.was_read or now_s - state.since_s <= REFUSAL_QUIET_S:
            return False
        state.was_read = True
        return True
