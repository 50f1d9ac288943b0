"""Open the study that a command names, and list the studies where it names none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tune.config import ComposedConfig
from tune.errors import ConfigurationError, TuneError
from tune.report.formatting import command

if TYPE_CHECKING:
    from tune.records.folders import StudyFolder
    from tune.records.study_record import StudyRecord


def study_root(composition: ComposedConfig) -> Path:
    """Return the folder of the study that a command names."""
    return Path(composition.settings.runs_dir) / composition.study_name


def named_study(composition: ComposedConfig) -> tuple[StudyFolder, StudyRecord]:
    """Return folder and record of the study that a command names by study.name or by its sweep.

    Raises ConfigurationError, with all studies and the command for each, where it names none.
    """
    settings = composition.settings
    if settings.study.name is None and settings.sweep is None:
        raise ConfigurationError(no_study(composition, "study.name"))
    return recorded_study(study_root(composition))


def ranked_study(composition: ComposedConfig) -> tuple[StudyFolder, StudyRecord]:
    """Return folder and record of the study that a command names, whose trials can be ranked.

    Raises ConfigurationError, with the trials of each question, where single trials answer several.
    """
    folder, record = named_study(composition)
    questions = questions_of(folder, record)
    if len(questions) > 1:
        listed = "\n".join(
            f"  {question}: {', '.join(f'trial {number}' for number in sorted(numbers))}"
            for question, numbers in questions.items()
        )
        raise ConfigurationError(
            f"action={composition.settings.action}: the trials of {record.name} cannot be ranked; expected "
            f"one rack, model, workload and SLO, found {len(questions)}.\n{listed}\nMeasure those to be "
            f"compared in a study of their own (study.name=NAME). action=status study.name={record.name} "
            "trial=NUMBER shows one, and the command that measures it again."
        )
    return folder, record


def questions_of(folder: StudyFolder, record: StudyRecord) -> dict[str, list[int]]:
    """Return the numbers of the measured single trials by rack, model, workload and SLO; {} for a sweep.

    Each is named by what differs from another one.
    """
    if record.space:
        return {}
    found = dict[str, tuple[dict[str, str], list[int]]]()
    for outcome in folder.outcomes():
        if outcome.status != "measured":
            continue
        spec = folder.spec_of(outcome)
        rack, slo = spec.hardware, ", ".join(f"{limit.label} {limit.show(s)}" for limit, s in spec.slo.limits)
        names = {
            "rack": f"{rack.nodes} nodes x {rack.gpus_per_node} {rack.name}",
            "model": spec.model.name,
            "workload": str(outcome.provenance.get("workload", spec.load.dataset.name)),
            "SLO": slo or "no limit",
        }
        parts = (rack, spec.model, spec.load.dataset, spec.load.trace, spec.load.is_closed_loop, spec.slo)
        key = "\n".join(repr(part) for part in parts)
        found.setdefault(key, (names, []))[1].append(outcome.number)
    all_names = [names for names, _ in found.values()]
    varied = [part for part in all_names[0] if len({names[part] for names in all_names}) > 1] if found else []
    return {"; ".join(names[part] for part in varied or names): numbers for names, numbers in found.values()}


def no_study(composition: ComposedConfig, setting: str) -> str:
    """Return that `setting` names no study, with all studies and the command for each."""
    settings = composition.settings
    listed = list(_studies(composition, setting)) or [
        f"  There is none in {settings.runs_dir}; python -m tune +sweep=pd_split runs one."
    ]
    return "\n".join([f"action={settings.action}: found no study; expected {setting}=NAME.", *listed])


def recorded_study(root: Path, setting: str = "study.name") -> tuple[StudyFolder, StudyRecord]:
    """Return folder and record of the study in `root`, which `setting` named.

    Raises ConfigurationError where there is none.
    """
    from tune.records.folders import StudyFolder

    record = StudyFolder(root).read_study()
    if record is None:
        studies = ", ".join(folder.name for folder in _folders(root.parent)) or "none"
        raise ConfigurationError(
            f"{root}: no study there; expected {setting}=NAME with one of those in {root.parent}: {studies}."
        )
    return StudyFolder(root), record


def _folders(runs: Path) -> list[Path]:
    """Return the folders of all studies in `runs`, the one that changed last first."""
    found = sorted(path.parent for path in runs.glob("*/study.json"))
    return sorted(found, key=lambda folder: folder.stat().st_mtime, reverse=True)


def _studies(composition: ComposedConfig, setting: str) -> Iterator[str]:
    """Yield a line for each study: name, state, and the composed command with that study."""
    folders = _folders(Path(composition.settings.runs_dir))
    width = max((len(folder.name) for folder in folders), default=0)
    for folder in folders:
        state, location = _state(folder)
        words = [*composition.words, f"{setting}={folder.name}"]
        words += [word for word in location if word not in words]
        yield f"  {folder.name:<{width}}  {state:<25}  {command(words)}"


def _state(folder: Path) -> tuple[str, list[str]]:
    """Return the state of a study, and the words of its command that name its backend and folders."""
    from tune.records.confirmation import confirm_overrides
    from tune.records.folders import StudyFolder
    from tune.study.loop import is_running

    try:
        record = StudyFolder(folder).read_study()
        running = ", running" if is_running(folder) else ""
    except TuneError:
        return "not readable by this version", []
    if record is None:
        return "no record", []
    done = sum(1 for _ in folder.glob("*/outcome.json"))
    number = f"{done} of {record.n_trials} trials" if record.space else f"single trials: {done}"
    return (
        f"{number}{running}",
        [word for word in confirm_overrides(record) if not word.startswith(("action=", "study.name="))],
    )
