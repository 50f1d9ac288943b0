"""Decide whether a trial whose attempt gave no result runs again at once."""

from __future__ import annotations

from collections import defaultdict

from tune.records.outcome import Outcome
from tune.spec.backend_kinds import Capabilities
from tune.spec.settings import Settings

MAX_FAILED_ATTEMPTS = 3
"""Number of failed attempts after which a detached trial runs again only with rerun=true."""


class Retries:
    """Allow trials of a study further attempts, up to study.retries each while this object lives."""

    def __init__(self, settings: Settings, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        self._left: dict[str, int] = defaultdict(lambda: settings.study.retries)

    def grant(self, ended: Outcome) -> bool:
        """Return whether the trial runs again; count it if it does."""
        left = self._left[ended.trial_id]
        granted = left > 0 and self._may_pass(ended)
        self._left[ended.trial_id] = left - granted
        return granted

    def is_exhausted(self, outcome: Outcome) -> bool:
        """Return whether a detached trial has had MAX_FAILED_ATTEMPTS attempts."""
        return self._capabilities.detached and len(outcome.attempts) >= MAX_FAILED_ATTEMPTS

    def _may_pass(self, ended: Outcome) -> bool:
        """Return whether another attempt may give what the last one did not.

        A measurement that is not valid is made once more; what the simulator measures never changes.
        """
        if self.is_exhausted(ended):
            return False
        if ended.status != "measured":
            last = ended.attempts[-1] if ended.attempts else None
            if last is None or last.cause is None:  # lost without a record
                return True
            return last.cause == "infrastructure" and (last.evidence is None or last.evidence.repeats)
        measured_once = [attempt.class_ for attempt in ended.attempts].count("measured") == 1
        passes = any(probe.may_pass for probe in ended.probes if not probe.valid)
        return self._capabilities.real_time and not ended.valid and passes and measured_once
