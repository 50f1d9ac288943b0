"""Run action=import: write a recipe of another program as a folder of configuration."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tune.cli.imported_recipe import planned, write_options, written_recipe
from tune.cli.output import show
from tune.config import ComposedConfig
from tune.core.files import write_error
from tune.deploy.plan import LaunchPlan
from tune.engines.check import check, check_simulated
from tune.errors import ConfigurationError
from tune.recipes.formats import read_recipes
from tune.recipes.options import left_out_text, option_name
from tune.recipes.plan_differences import differences, written_out
from tune.recipes.recipe import OfferedRate, Recipe
from tune.recipes.recipe_load import has_sweep
from tune.spec.findings import Finding, only_errors
from tune.spec.load import load_text
from tune.spec.settings import Settings


def import_action(composition: ComposedConfig) -> None:
    """Read `recipe`, write it below `to`, and print what was taken over and what was not.

    Raises ConfigurationError for a recipe that cannot be read, for files that would be overwritten, and where
    the written configuration would not launch what the recipe says. Then nothing is written.
    """
    settings = composition.settings
    if settings.recipe is None or settings.to is None:
        raise ConfigurationError(
            "action=import needs recipe=FILE, a recipe of another program, and to=DIR, the folder of "
            "configuration to write."
        )
    typed = {word.partition("=")[0] for word in composition.overrides}
    stated = {"split.prefill_workers", "split.decode_workers"} <= typed or "split" in typed
    recipes = read_recipes(settings.recipe, settings.split if stated else None, settings.hardware)
    folder = Path(settings.to)
    written = [written_recipe(recipe, composition.overrides) for recipe in recipes]
    files = {option_name(recipe): texts for recipe, texts in written}
    _refuse_overwriting(folder, files)
    reports = [_verified(recipe, texts, folder) for recipe, texts in written]
    write_options(folder, {name: text for texts in files.values() for name, text in texts.items()})
    for report in reports:
        show("\n".join(report))


def _refuse_overwriting(folder: Path, files: Mapping[str, Mapping[str, str]]) -> None:
    for texts in files.values():
        for name, text in texts.items():
            file = folder / name
            try:
                differs = file.exists() and file.read_text(encoding="utf-8", errors="replace") != text
            except OSError as error:
                raise write_error(file, error) from None
            if differs:
                raise ConfigurationError(
                    f"to: found {file}, with other content than this recipe gives; expected no such file. "
                    "Move it away, or name another folder. Nothing was written."
                )


def _verified(recipe: Recipe, texts: Mapping[str, str], folder: Path) -> list[str]:
    """Return lines on a recipe and its files, which go to `folder`.

    Raises ConfigurationError where its plan is not what the recipe says.
    """
    settings, plan = planned(recipe, texts)
    unequal = differences(recipe, settings.trial_spec, plan)
    if unequal:
        raise ConfigurationError(
            f"{recipe.origin}: tune cannot launch what it says; nothing was written. In the plan\n  "
            + "\n  ".join(unequal)
        )
    return [
        *_taken(recipe, settings),
        *_not_taken(recipe, plan),
        *_broken(check(settings.trial_spec)),
        *_next_commands(folder, recipe, settings),
    ]


def _taken(recipe: Recipe, settings: Settings) -> Iterator[str]:
    """Yield lines on what was taken over."""
    rack = settings.hardware
    yield f"recipe    {recipe.name}: {recipe.origin}"
    yield f"model     {settings.model.name}, served as {settings.model.served_name}"
    yield f"rack      {rack.nodes} nodes x {rack.gpus_per_node} {rack.name}, {settings.split.label}"
    for role, pool in recipe.pools.items():
        yield (
            f"{role:<9} {pool.workers} x {pool.gpus_per_worker} GPUs, {len(pool.engine_keys)} engine keys, "
            f"{len(pool.env)} environment variables"
        )
    if recipe.lengths:
        tokens = f"{recipe.lengths.input_tokens} + {recipe.lengths.output_tokens} tokens at most"
        yield f"load      {tokens}{_arrivals(recipe)}"
    for name, value in recipe.cluster.items():
        yield f"cluster   {name}: {value}"
    if recipe.kept:
        found, before = settings.trial_spec.trial_id, recipe.kept.trial_id
        same = "as exported" if found == before else f"which differs from the exported {before}"
        yield f"trial     {found}, {same}; in the comments were {', '.join(recipe.kept.groups)}"


def _arrivals(recipe: Recipe) -> str:
    """Return what is sent, in words, behind the lengths; nothing where the recipe does not say."""
    if isinstance(recipe.arrivals, OfferedRate):
        return f", {load_text(recipe.arrivals.qps, None)}"
    if recipe.arrivals is None:
        return ""
    users = recipe.arrivals.users
    several = f", the most of {', '.join(map(str, users))}" if len(users) > 1 else ""
    return f", a closed loop of {load_text(None, recipe.arrivals.most)}{several}"


def _not_taken(recipe: Recipe, plan: LaunchPlan) -> Iterator[str]:
    """Yield lines on what was not taken over, and on engine defaults that are written out."""
    if recipe.left_out:
        yield "Not taken over:"
        yield from (f"  {left_out_text(part)}" for part in recipe.left_out)
    defaults = written_out(recipe, plan)
    if defaults:
        yield "Left to the engine in the recipe, written out with the engine's default:"
        yield from (f"  {line}" for line in defaults)


def _broken(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield lines on the rules of tune that the recipe breaks."""
    for finding in only_errors(findings):
        yield f"error: {finding.path}: found {finding.found}; expected {finding.expected}: {finding.why}"


def _next_commands(folder: Path, recipe: Recipe, settings: Settings) -> Iterator[str]:
    """Yield the commands that start from what was written.

    A study is the recipe's own sweep of users, else of the split; aggregated workers have none, and are
    measured as they are. It needs a rate, searches for it, or has the recipe's users.
    """
    name = option_name(recipe)
    words = ["python", "-m", "tune", "--config-dir", str(folder), f"+recipe={name}"]
    yield f"plan      {shlex.join([*words, 'action=plan', 'cluster=slurm'])}"
    untimed = only_errors(check_simulated(settings.trial_spec))
    if untimed:
        what = f"{untimed[0].path} ({untimed[0].found})"
        yield f"          No simulated rack can time {what}: measure it with Slurm."
        words.append("cluster=slurm")
    if has_sweep(recipe):
        words.append(f"+sweep={name}")
    elif not recipe.is_aggregated:
        words.append("+sweep=pd_split")
    if not settings.load.is_closed_loop:
        words.append("load.mode=fixed" if untimed else "load.mode=capacity")
    elif not has_sweep(recipe):
        words.append("slo.ttft_p99_s=null")  # all users send their first query at once
    yield f"study     {shlex.join([*words, f'study.name={name}'])}"
