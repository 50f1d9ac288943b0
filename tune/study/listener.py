"""Define what a study tells its terminal while it runs."""

from __future__ import annotations

from tune.backends.activity import Activity
from tune.records.outcome import Outcome
from tune.spec.trial import TrialSpec


class StudyListener:
    """Receive what happens in a study, in the process and thread that runs it; this class ignores all of it.

    A terminal overrides the methods that it shows and hands its object to `run_study` or `run_repeats`:

        class Lines(StudyListener):
            def trial_does(self, number: int, activity: Activity) -> None:
                print(f"trial {number}: {activity.text}")

    The calls come in this order: `prepared` before the first suggestion; for each trial `trial_begun`, then
    `trial_does` any number of times and `trial_ended`, before that `trial_repeated`, `trial_begun` and
    `trial_does` for each further attempt; `recorded` once for each outcome, when its batch has
    ended. Steps of trials that run at once are mixed. A trial whose outcome is on record goes straight to
    `recorded`. Return from a method at once: the study waits for it.
    """

    def prepared(self, done: int, total: int) -> None:
        """Learn that the search has simulated `done` of `total` prefill pools."""

    def trial_begun(self, number: int, spec: TrialSpec) -> None:
        """Learn that an attempt of trial `number` is submitted; it may wait for a worker or a node."""

    def trial_does(self, number: int, activity: Activity) -> None:
        """Learn what the attempt of trial `number` does; backends that cannot tell call nothing."""

    def trial_ended(self, outcome: Outcome) -> None:
        """Learn the outcome of an attempt that has just ended; other trials of its batch may still run."""

    def trial_repeated(self, outcome: Outcome) -> None:
        """Learn that an attempt failed, or measured nothing valid, and that another one begins."""

    def recorded(self, outcome: Outcome) -> None:
        """Learn an outcome, also one on record, in the order in which the search observes them."""


SILENT = StudyListener()
"""Show nothing."""
