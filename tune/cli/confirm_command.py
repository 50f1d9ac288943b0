"""action=confirm: the best configurations of a study, measured again on new deployments."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tune.cli.recorded_commands import recorded_study, study_root
from tune.config import Composition, trial_overrides
from tune.errors import NegativeResult
from tune.spec.settings import Settings

if TYPE_CHECKING:
    from tune.backends.base import Backend
    from tune.records.folders import StudyFolder
    from tune.study.confirm_winners import ConfirmationCandidate


def confirm(
    composition: Composition,
    require_runnable: Callable[[Settings], None],
    make_place: Callable[[Settings, int], Backend],
) -> None:
    """Measure what is not on record, say what it came to, and write the study's report anew."""
    from tune.cli.progress import trials_bar
    from tune.records.confirmation import repeats_root, write_confirmation
    from tune.records.posterior_summary import read_posterior
    from tune.report.page import write_report
    from tune.report.terminal import render_confirmation
    from tune.study import confirm_winners as confirming
    from tune.study.loop import open_study

    study, record = recorded_study(study_root(composition))
    confirming.require_confirmable(record, composition.settings, composition.overrides)
    chosen = confirming.select_candidates(study, record, composition.settings.confirm)
    settings = confirming.settings_for(chosen[0], composition.settings)
    require_runnable(settings)
    backend = make_place(settings, settings.cluster.processes or len(os.sched_getaffinity(0)))
    asked = confirming.pin_repeats(record, chosen, settings, composition.overrides)
    overrides = partial(trial_overrides, settings=settings)
    with open_study(repeats_root(study.root), asked) as folder:
        _announce(folder, chosen, settings)
        with backend as running, trials_bar(sum(len(one.specs) for one in chosen), asked.name) as recorded:
            candidates = confirming.run_repeats(
                folder, chosen, settings, running, overrides=overrides, recorded=recorded
            )
        found = confirming.confirmed(study, folder, record.name, candidates, settings.confirm)
        path = write_confirmation(folder.root, found)
    outcomes = study.outcomes()
    print(render_confirmation(record, outcomes, found))
    print(f"record    {path}")
    reports = Path(settings.reports_dir) / record.name
    belief, proposals = read_posterior(study.root), study.read_proposals()
    page = write_report(reports, record, outcomes, confirmation=found, posterior=belief, proposals=proposals)
    print(f"report    {page}")
    confirming.require_complete(candidates)
    if found.configurations[0].capacity_qps is None:
        raise NegativeResult("No configuration holds its SLO on every new deployment; the report says why.")


def _announce(folder: StudyFolder, chosen: tuple[ConfirmationCandidate, ...], settings: Settings) -> None:
    """Say what is ahead before the first submission."""
    from tune.study.confirm_winners import gpu_hours_ahead

    if len(chosen) < settings.confirm.configurations:
        print(
            f"confirm.configurations: {settings.confirm.configurations} asked, {len(chosen)} of this study "
            "hold their SLO and differ in more than their rate",
            file=sys.stderr,
        )
    ahead, gpu_hours = gpu_hours_ahead(folder, chosen, rerun=settings.rerun)
    repeats = sum(len(one.specs) for one in chosen)
    print(
        f"{ahead} of {repeats} repeats are ahead, about {gpu_hours:,.0f} GPU-hours by what these "
        "configurations cost the study",
        file=sys.stderr,
    )
