"""Write one trial in the format of another program, and verify that it imports as the same trial."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tune.cli.imported_recipe import planned, written_recipe
from tune.cli.output import show
from tune.cli.recorded_commands import named_trial
from tune.cli.studies import named_study, ranked_study
from tune.config import ComposedConfig, compose_overrides, shipped_settings
from tune.core.files import make_folder, open_atomic, write_text
from tune.deploy.plan import LaunchPlan, render
from tune.deploy.standalone_job import JOB, standalone_job
from tune.errors import ConfigurationError
from tune.manifest.process_manifest import MANIFEST_FILE, ProcessManifest
from tune.recipes.exported_recipe import ExportedRecipe, PlannedTrial
from tune.recipes.formats import read_recipes
from tune.recipes.graph_writer import write_dynamo_graph
from tune.recipes.kept_settings import GROUPS, WRITTEN, Tree, keep, missing_settings
from tune.recipes.options import left_out_text, stated_settings
from tune.recipes.plan_differences import differences
from tune.recipes.srt_writer import write_srt_slurm
from tune.spec.cluster import ClusterFacts
from tune.spec.cluster_rules import example_values
from tune.spec.engine_table import ENGINES
from tune.spec.split import ALL_ROLES
from tune.spec.trial import TrialSpec

if TYPE_CHECKING:
    from tune.records.folders import StudyFolder
    from tune.records.outcome import Outcome
    from tune.records.study_record import StudyRecord
    from tune.report.recommended import RecommendedConfiguration

Target = Literal["sbatch", "srt-slurm", "dgd"]

_WRITERS: Mapping[str, Callable[[PlannedTrial], ExportedRecipe]] = {
    "srt-slurm": write_srt_slurm,
    "dgd": write_dynamo_graph,
}
_BEST = "best"


@dataclass(frozen=True)
class RecordedTrial:
    """Hold a trial of a study: its configuration, its outcome if there is one, the rate to offer it.

    A closed loop has no rate.
    """

    spec: TrialSpec
    outcome: Outcome | None
    rate_qps: float | None
    study: StudyRecord


@dataclass(frozen=True)
class VerifiedExport:
    """Hold what is written of a trial, and what its import gave.

    `unstated` are the settings that the format has no place for, `differences` those in which the imported
    trial differs; None where it cannot be imported.
    """

    recipe: ExportedRecipe
    unstated: tuple[str, ...]
    differences: tuple[str, ...] | None


def export_trial(composition: ComposedConfig, target: Target) -> None:
    """Write a trial for another launcher, and print what it cannot carry.

    Raises ConfigurationError for a trial that does not exist, one that the other program cannot launch, and
    where files of others would be overwritten.
    """
    trial = recorded_trial(composition)
    facts = _facts(composition, trial.outcome)
    name, is_folder = trial.spec.trial_id, target == "sbatch"
    path = _path(composition, f"{name}.{target}" if is_folder else f"{name}.{target}.yaml")
    exported = exported_trial(trial.spec, facts, target, trial.rate_qps)
    _refuse_foreign(path / exported.recipe.main if is_folder else path, path)
    for file, content in exported.recipe.files.items():
        target_file = path / file if is_folder else path
        make_folder(target_file.parent, parents=True)
        with open_atomic(target_file) as opened:
            opened.write(content.encode() if isinstance(content, str) else content)
    show(f"exported  trial {name} ({trial.spec.split.label}) of {trial.study.name}: {path}")
    show("\n".join(_report(exported, path, target)))


def export_report(composition: ComposedConfig) -> None:
    """Write the results of a trial as a Benchmark Report, and print what it has no place for.

    Raises ConfigurationError for a trial that does not exist or was not measured, and where a file of others
    would be overwritten.
    """
    from tune.report.benchmark_report import NOT_REPORTED, benchmark_report

    trial = recorded_trial(composition)
    outcome, name = trial.outcome, trial.spec.trial_id
    if outcome is None or not outcome.probes or outcome.status != "measured":
        raise ConfigurationError(
            f"trial={name}: found {outcome.status if outcome else 'no outcome'}; expected a measured "
            "trial, as a report holds results."
        )
    path = _path(composition, f"{name}.benchmark-report.yaml")
    _refuse_foreign(path, path)
    folder, _ = named_study(composition)
    text = benchmark_report(trial.study, trial.spec, outcome, folder.trial(name))
    make_folder(path.parent, parents=True)
    write_text(path, f"{WRITTEN}\n{text}")
    show(f"exported  results of trial {name} ({trial.spec.split.label}) of {trial.study.name}: {path}")
    show("\n".join(["Not in the report:", *(f"  {part}" for part in NOT_REPORTED)]))


def exported_trial(
    spec: TrialSpec, facts: ClusterFacts, target: Target, rate_qps: float | None
) -> VerifiedExport:
    """Return a trial for another launcher, after it was imported again.

    Parameters
    ----------
    spec, facts
        The trial and the cluster.
    target
        The format.
    rate_qps
        The rate at which a folder for Slurm sends its load, None for a closed loop.

    Returns
    -------
    VerifiedExport
        The files, and what became of the trial on its way.

    Raises
    ------
    ConfigurationError
        For a trial that the other program cannot launch.
    """
    plan = render(spec, facts)
    if target == "sbatch":
        written = ExportedRecipe(_job_files(spec, facts, plan, rate_qps), JOB)
    else:
        written = _WRITERS[target](PlannedTrial(spec.trial_id, spec, facts, plan))
    written = written.with_placeholders(
        example_values(facts, {pool.role: pool.engine for pool in spec.pools} | {"stack": spec.stack})
    )
    if ENGINES[spec.stack.engine].recipe_name is None:
        return VerifiedExport(written.with_kept(keep(spec, {})), (), None)
    plain = spec.model_dump(mode="json")
    first = _imported(written.with_kept(keep(spec, {})), target)
    over = missing_settings(plain, first.spec.model_dump(mode="json"))
    recipe = written.with_kept(keep(spec, over))
    second = _imported(recipe, target) if over else first
    unequal = (*second.unequal, *_paths(missing_settings(plain, second.spec.model_dump(mode="json"))))
    if not unequal and second.spec.trial_id != spec.trial_id:
        unequal = tuple(_paths(missing_settings(second.spec.model_dump(mode="json"), plain)))
    pools = _paths({role: over[role] for role in ALL_ROLES if role in over})
    return VerifiedExport(recipe, (*_unstated(plain, first.stated), *pools), unequal)


def _job_files(
    spec: TrialSpec, facts: ClusterFacts, plan: LaunchPlan, rate_qps: float | None
) -> dict[str, str | bytes]:
    manifest = ProcessManifest.model_validate_json(plan.files[MANIFEST_FILE])
    return standalone_job(spec, facts, plan, manifest, rate_qps)


@dataclass(frozen=True)
class _Import:
    """Hold the trial that an import gave, what its plan has otherwise than the recipe, what that states."""

    spec: TrialSpec
    unequal: tuple[str, ...]
    stated: Tree


def _imported(recipe: ExportedRecipe, target: Target) -> _Import:
    with tempfile.TemporaryDirectory() as scratch:
        for file, content in recipe.files.items():
            with open_atomic(Path(scratch, file)) as opened:
                opened.write(content.encode() if isinstance(content, str) else content)
        source = scratch if target == "sbatch" else str(Path(scratch, recipe.main))
        (read,) = read_recipes(source, None, shipped_settings().hardware)
    kept, texts = written_recipe(read, ())
    settings, plan = planned(kept, texts)
    unequal = differences(kept, settings.trial_spec, plan)
    return _Import(settings.trial_spec, unequal, stated_settings(kept))


def _unstated(plain: Mapping[str, Any], stated: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings that a recipe does not state; a group that it hardly states by its name."""
    for group in GROUPS:
        settings = plain[group]
        missing = list(_paths(missing_settings(settings, stated.get(group) or {}), f"{group}."))
        known = [path for path in _paths(settings, f"{group}.") if path not in missing]
        if not known:
            yield group
        elif len(known) < len(missing):
            yield f"{group} (but {', '.join(path.removeprefix(f'{group}.') for path in known)})"
        else:
            yield from missing


def _paths(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _report(exported: VerifiedExport, path: Path, target: Target) -> Iterator[str]:
    """Yield lines on what the format carries, and on the way back."""
    if exported.recipe.placeholders:
        yield "Placeholders of the example cluster, also in a comment at the top; put in your own:"
        yield from (f"  {text}" for text in exported.recipe.placeholders)
    if exported.unstated:
        yield f"Kept in its comments, as {target} has no place for them: {', '.join(exported.unstated)}"
    if exported.recipe.left_out:
        yield "Not exported:"
        yield from (f"  {left_out_text(part)}" for part in exported.recipe.left_out)
    if exported.differences is None:
        yield "import    not possible: no recipe has mock engines"
        return
    yield f"import    {shlex.join(['python', '-m', 'tune', 'import', f'recipe={path}', 'to=DIR'])}"
    if exported.differences:
        yield "          gives another trial, with other " + ", ".join(exported.differences)
    if target == "sbatch":
        yield f"submit    cd {shlex.quote(str(path))} && sbatch {JOB}"


def recorded_trial(composition: ComposedConfig) -> RecordedTrial:
    """Return the trial that `trial` names, or the best one. Raises ConfigurationError where there is none."""
    from tune.report.recommended import verified_or_offered_qps

    if composition.settings.trial in (None, _BEST):
        return _best_trial(*ranked_study(composition))
    folder, record = named_study(composition)
    recorded = folder.trial(named_trial(composition, folder))
    spec, outcome = recorded.read_spec(), recorded.read_outcome()
    assert spec is not None
    rate_qps = verified_or_offered_qps(outcome) if outcome else spec.load.target_qps
    return RecordedTrial(spec, outcome, rate_qps, record)


def _best_trial(folder: StudyFolder, record: StudyRecord) -> RecordedTrial:
    from tune.analysis.ranking import rank
    from tune.records.confirmation import read_confirmation
    from tune.records.posterior_summary import read_posterior
    from tune.report.recommended import recommended_configuration

    outcomes = folder.outcomes()
    ranked = [row["trial_id"] for row in rank(outcomes, read_posterior(folder.root))]
    best = recommended_configuration(record, outcomes, ranked, read_confirmation(folder.root))
    spec = _spec_of(best, folder) if best else None
    if best is None or spec is None:
        raise ConfigurationError(
            f"trial={_BEST}: no trial of {record.name} held its SLO; expected one that did. Name any other "
            "with trial=ID."
        )
    return RecordedTrial(spec, best.trial, best.rate_qps, record)


def _spec_of(best: RecommendedConfiguration, folder: StudyFolder) -> TrialSpec | None:
    """Return the recorded trial; of one that only a confirmation measured, what its overrides compose."""
    if best.confirmed and best.confirmed.predicted:
        return compose_overrides(best.confirmed.overrides).settings.trial_spec
    return folder.trial(best.trial.trial_id).read_spec()


def _facts(composition: ComposedConfig, outcome: Outcome | None) -> ClusterFacts:
    """Return the facts of the cluster on the command line, or where it names none those of the record."""
    recorded = outcome.provenance.get("overrides") if outcome else None
    if recorded is None or any(word.lstrip("+~").startswith("cluster") for word in composition.overrides):
        return composition.settings.cluster
    return compose_overrides(recorded).settings.cluster


def _path(composition: ComposedConfig, name: str) -> Path:
    settings = composition.settings
    if settings.export.file:
        return Path(settings.export.file)
    return Path(settings.reports_dir) / composition.study_name / name


def _refuse_foreign(file: Path, path: Path) -> None:
    """Raise ConfigurationError where something is there that action=export did not write."""
    if path.exists() and not (
        file.is_file() and WRITTEN in file.read_text(encoding="utf-8", errors="replace")
    ):
        raise ConfigurationError(
            f"export.file: {path} exists and was not written by action=export; expected a new one. Name "
            "another one."
        )
