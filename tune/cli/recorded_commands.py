"""Actions on a study on disk: what it has done and does, its logs, its jobs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tune.config import Composition
from tune.errors import ConfigurationError

if TYPE_CHECKING:
    from tune.records.folders import StudyFolder
    from tune.records.outcome import Outcome
    from tune.records.study_record import StudyRecord


def study_root(composition: Composition) -> Path:
    return Path(composition.settings.runs_dir) / composition.study_name


def recorded_study(root: Path, key: str = "study.name") -> tuple[StudyFolder, StudyRecord]:
    """The study in `root`, which the setting `key` named. Raises ConfigurationError where there is none."""
    from tune.records.folders import StudyFolder

    record = StudyFolder(root).read_study()
    if record is None:
        studies = ", ".join(sorted(path.parent.name for path in root.parent.glob("*/study.json"))) or "none"
        raise ConfigurationError(
            f"{root}: no study there; expected {key}=NAME with one of those in {root.parent}: {studies}."
        )
    return StudyFolder(root), record


def repeat_command(outcome: Outcome) -> str:
    """The command that measures this trial again."""
    return shlex.join(["python", "-m", "tune", *outcome.provenance["overrides"]])


def status(composition: Composition) -> None:
    """What a study has done, what runs; or all about one trial."""
    from tune.records.posterior_summary import read_posterior
    from tune.report.terminal import render_outcome, render_status

    folder, record = recorded_study(study_root(composition))
    if composition.settings.trial is None:
        belief = read_posterior(folder.root)
        print(render_status(record, folder.read_proposals(), folder.outcomes(), belief))
        _print_jobs(folder, record, None)
        return
    trial_id = _trial_id(composition, folder)
    outcome, spec = folder.trial(trial_id).read_outcome(), folder.trial(trial_id).read_spec()
    if outcome and spec:
        print(render_outcome(outcome, spec.slo, record))
        print(f"again     {repeat_command(outcome)}")
    else:
        print(f"trial     {trial_id}: not recorded yet")
    _print_jobs(folder, record, trial_id)


def logs(composition: Composition) -> None:
    """Print what the last attempt of a trial logs, as long as it runs."""
    from tune.core.log_tail import follow_logs

    folder, record = recorded_study(study_root(composition))
    trial_id = _trial_id(composition, folder)
    attempt = folder.trial(trial_id).last_attempt()
    if attempt is None or record.backend == "sim":
        found = "the simulated rack starts no process" if attempt else "no attempt was made"
        raise ConfigurationError(
            f"trial={trial_id}: {found}; expected a trial with logs, of cluster=local or slurm."
        )
    files, ended = _log_files(attempt), _end_of(attempt, folder, record)
    for line in follow_logs(files, ended):
        print(line, flush=True)


def cancel(composition: Composition) -> None:
    """Cancel the jobs of a study, or those that work for one trial of it."""
    from tune.backends.slurm.pending_jobs import cancel_jobs
    from tune.study.loop import is_locked

    folder, record = recorded_study(study_root(composition))
    if record.backend != "slurm":
        raise ConfigurationError(
            f"action=cancel: study {record.name} runs on cluster={record.backend}, inside the process that "
            "runs it: press Ctrl-C there. Expected a study of cluster=slurm."
        )
    trial_id = None if composition.settings.trial is None else _trial_id(composition, folder)
    cancelled = cancel_jobs(folder.root, trial_id)
    for job in cancelled:
        print(f"cancelled {job.text}")
    if not cancelled:
        print(f"No job of {f'trial {trial_id}' if trial_id else f'study {record.name}'} waits or runs.")
    elif is_locked(folder.root):
        print("A process runs this study: it may submit further trials. Press Ctrl-C there to end it.")


def _trial_id(composition: Composition, folder: StudyFolder) -> str:
    """The trial that `trial` names by id or number. Raises ConfigurationError where there is none."""
    trial = composition.settings.trial
    by_number = {proposal.number: proposal.trial_id for proposal in folder.read_proposals()}
    trial_id = by_number.get(trial, "-") if isinstance(trial, int) else trial
    if trial_id is None or folder.trial(trial_id).read_spec() is None:
        raise ConfigurationError(
            f"trial={trial}: no such trial in {folder.root}; expected the number or the trial_id of one of "
            f"its {len(folder.trials())} trials, as the report and ranking.json list them."
        )
    return trial_id


def _print_jobs(folder: StudyFolder, record: StudyRecord, trial_id: str | None) -> None:
    if record.backend != "slurm":
        return
    from tune.backends.slurm.pending_jobs import pending_jobs
    from tune.records.folders import trial_of

    for job in pending_jobs(folder.root):
        if trial_id is None or trial_id in {trial_of(attempt).root.name for attempt in job.owed}:
            print(f"runs      {job.text}")


def _log_files(attempt: Path) -> Callable[[], list[Path]]:
    from tune.backends.slurm.allocation import allocation_of

    def files() -> list[Path]:
        allocation = allocation_of(attempt)
        batch_step = allocation.log() if allocation else None
        return [*([batch_step] if batch_step else []), *sorted(attempt.glob("logs/*"))]

    return files


def _end_of(attempt: Path, folder: StudyFolder, record: StudyRecord) -> Callable[[], bool]:
    """Whether an attempt has ended: it left its record, or whatever would write one is gone."""
    from tune.backends.slurm.job_monitor import JobMonitor
    from tune.backends.slurm.pending_jobs import pending_jobs
    from tune.cli.progress import print_above_bar
    from tune.records.folders import has_ended
    from tune.study.loop import is_locked

    if record.backend != "slurm":
        return lambda: has_ended(attempt) or not is_locked(folder.root)
    watch = JobMonitor(print_above_bar)
    owing = next((job for job in pending_jobs(folder.root) if attempt.absolute() in job.owed), None)
    if owing and owing.job_id:
        watch.follow(owing.job_id, f"trial {attempt.parents[1].name}")

    def ended() -> bool:
        if has_ended(attempt) or owing is None or owing.job_id is None:
            return True
        watch.refresh()
        return watch.info(owing.job_id).phase == "ended"

    return ended
