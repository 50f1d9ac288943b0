"""Lay out a measured trial as a submission to MLPerf Inference, in the form that its checker reads."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tune.core.files import first_validation_error, make_folder, write_error
from tune.errors import ConfigurationError
from tune.loadgen.accuracy_log import ACCURACY_LOG
from tune.loadgen.log_writer import DETAIL_LOG, SUMMARY_LOG
from tune.records.accuracy import ACCURACY_FOLDER
from tune.records.folders import TrialFolder
from tune.spec.mlperf_rules import (
    BENCHMARK,
    MAY_BE_EMPTY,
    MEASUREMENT_FIELDS,
    ROUNDS,
    SAMPLES,
    SYSTEM_FIELDS,
    scenario_of,
)
from tune.study.mlperf_files import (
    Layout,
    SubmittedRun,
    SubmitterFacts,
    results_readme,
    source_readme,
    system_description,
    user_conf,
    weights_description,
)

_VIEWABLE_BYTES = 4096
"""Bytes at each end of the accuracy log that a submission keeps; the rest is hashed.

Source: MLPerf Inference, tools/submission/truncate_accuracy_log.py.
"""

_DIVISIONS = ("open", "closed")


@dataclass(frozen=True)
class Submission:
    """Hold the folder of a submission, and in words what it still lacks."""

    folder: Path
    lacks: tuple[str, ...]


def read_submitter_facts(path: Path | None) -> SubmitterFacts:
    """Return the facts in the YAML file `path`; placeholders without one.

    Raises ConfigurationError, which names what is wrong.
    """
    if path is None:
        return SubmitterFacts()
    try:
        return SubmitterFacts.model_validate(yaml.safe_load(path.read_text("utf-8")) or {})
    except OSError as error:
        found = error.strerror
    except yaml.YAMLError as error:
        found = str(error).replace("\n", " ")
    except ValidationError as error:
        found = first_validation_error(error)
    raise ConfigurationError(
        f"export.submitter={path}: {found}; expected a YAML file with submitter, division (open or closed), "
        "status, and the texts of system and measurements by their names in the benchmark's JSON files."
    )


def write_submission(folder: Path, trial: TrialFolder, facts: SubmitterFacts) -> Submission:
    """Write the submission of a trial.

    Parameters
    ----------
    folder
        Folder that is written; one of an earlier export is replaced.
    trial
        Folder of the trial, with the logs of its full run and of its accuracy run.
    facts
        What the submitter states.

    Returns
    -------
    Submission
        With everything that the submitter still has to provide.

    Raises
    ------
    ConfigurationError
        Where the trial is no run of the benchmark, or `folder` holds other files.
    """
    run = _read_run(trial)
    _require_replaceable(folder)
    system_json, measurements = system_description(run, facts), weights_description(run, facts)
    place = Layout.of(run, facts)
    results, accuracy_logs = place.results, run.attempt / ACCURACY_FOLDER
    full_log = (accuracy_logs / ACCURACY_LOG).read_bytes()
    texts = {
        place.system: _json(system_json),
        place.source / "README.md": source_readme(run),
        place.measurements: _json(measurements),
        place.measurements.parent / "user.conf": user_conf(run),
        place.measurements.parent / "README.md": results_readme(run),
        results / "performance" / "run_1" / ACCURACY_LOG: "[\n]\n",
        results / "accuracy" / "accuracy.txt": (
            f"\nResults\n\n{run.accuracy.result_line}\n\nhash={hashlib.sha256(full_log).hexdigest()}\n"
        ),
        results / "accuracy" / ACCURACY_LOG: _viewable(full_log.decode()),
    }
    sources = {"performance/run_1": run.logs, "accuracy": accuracy_logs}
    copies = {
        results / target / name: source / name
        for target, source in sources.items()
        for name in (DETAIL_LOG, SUMMARY_LOG)
    }
    _write_whole(folder, texts, copies)
    return Submission(folder, tuple(_lacking(run, facts, system_json, measurements)))


def _read_run(trial: TrialFolder) -> SubmittedRun:
    """Return the run of a trial that can be submitted. Raises ConfigurationError where there is none."""
    spec, outcome = trial.read_spec(), trial.read_outcome()
    advice = "action=confirm confirm.accuracy=true measures one, or a trial with load.accuracy=true."
    if spec is None or outcome is None or outcome.accuracy is None:
        raise ConfigurationError(
            f"{trial.root}: found no accuracy run; expected a trial with performance and accuracy. {advice}"
        )
    scenario = scenario_of(spec.slo)
    if scenario is None or not spec.model.name.startswith(BENCHMARK):
        raise ConfigurationError(
            f"{trial.root}: found {spec.model.name} with limits of {spec.slo.ttft_p99_s} and "
            f"{spec.slo.tpot_p99_s} s; expected {BENCHMARK} with limits of the benchmark: slo=interactive or "
            "slo=server."
        )
    full = [
        probe
        for probe in outcome.probes
        if probe.full and not probe.stopped and probe.target_qps == outcome.accuracy.target_qps
    ]
    if not full:
        raise ConfigurationError(
            f"{trial.root}: found no full run at {outcome.accuracy.target_qps:g} queries/s, the rate of its "
            f"accuracy run; expected one. {advice}"
        )
    return SubmittedRun(spec, outcome, full[-1], outcome.accuracy, scenario, trial.root / full[-1].raw)


def _require_replaceable(folder: Path) -> None:
    """Raise ConfigurationError for a folder with other files than those of an earlier export."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    others = sorted(set(names) - set(_DIVISIONS))
    if others or (folder.exists() and not folder.is_dir()):
        raise ConfigurationError(
            f"export.file={folder}: found {', '.join(others) or 'a file'}; expected a new folder, or one "
            "of an earlier export."
        )


def _viewable(text: str) -> str:
    """Return the ends of a log, as a submission holds it; all of a short one."""
    if len(text) < _VIEWABLE_BYTES:
        return text
    return f"{text[:_VIEWABLE_BYTES]}\n\n...\n\n{text[-_VIEWABLE_BYTES:]}"


def _json(fields: Mapping[str, Any]) -> str:
    """Return `fields` as JSON, sorted."""
    return json.dumps(fields, indent=4, sort_keys=True) + "\n"


def _write_whole(folder: Path, texts: Mapping[Path, str], copies: Mapping[Path, Path]) -> None:
    """Write files by their paths in `folder`, all or none."""
    partial = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name in (*texts, *copies):
            make_folder((partial / name).parent, parents=True)
        for name, text in texts.items():
            (partial / name).write_text(text, "utf-8")
        for name, source in copies.items():
            shutil.copyfile(source, partial / name)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _lacking(
    run: SubmittedRun, facts: SubmitterFacts, system_json: Mapping[str, Any], measurements: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what a submission of the run still lacks."""
    if facts.submitter == SubmitterFacts().submitter:
        yield "submitter is a placeholder"
    empty = [name for name in SYSTEM_FIELDS if not system_json.get(name) and name not in MAY_BE_EMPTY]
    if empty:
        yield f"system has no {', '.join(empty)}"
    empty = [name for name in MEASUREMENT_FIELDS if not measurements.get(name)]
    if empty:
        yield f"measurements has no {', '.join(empty)}"
    if run.accuracy.missed:
        yield f"the accuracy is missed: {'; '.join(run.accuracy.missed)}"
    if not run.performance.feasible:
        yield f"the full run does not hold: {run.performance.reason}"
    if run.accuracy.samples != SAMPLES:
        yield f"the dataset has {run.accuracy.samples} samples, the benchmark's {SAMPLES}"
    if run.round is None:
        versions = ", ".join(each.version for each in ROUNDS)
        yield f"load.seed is of no round: expected that of one of {versions} (docs/how-to/accuracy.md)"
    if facts.division == "closed":
        yield "the closed division demands the compliance run TEST06, which tune does not make"
