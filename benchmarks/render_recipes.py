"""Import public recipes of disaggregated TensorRT-LLM deployments, and compare each with its plan.

    python benchmarks/render_recipes.py FOLDER [--verbose] [--export]

FOLDER holds recipes, at any depth. Each is imported as `action=import` does: read, written as a folder of
configuration, composed with --config-dir, checked and rendered. It comes through whole where the plan has its
engine keys, environment, workers, GPUs, nodes, frontends, router and lengths, and breaks no rule. With
--export it also goes out, as a job for Slurm, a recipe of srt-slurm and a deployment of Dynamo, and
has to come back from each as the same trial.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tune.cli.imported_recipe import planned, written_recipe
from tune.cli.trial_export import Target, exported_trial
from tune.config import shipped_settings
from tune.engines.check import check
from tune.errors import ConfigurationError
from tune.recipes.formats import read_recipes
from tune.recipes.plan_differences import differences
from tune.recipes.recipe import LeftOut, Recipe
from tune.spec.findings import only_errors
from tune.spec.settings import Settings


@dataclass(frozen=True)
class Result:
    """Hold what became of a recipe; `refused` says why there is no plan."""

    file: str
    differences: tuple[str, ...] = ()
    broken_rules: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    refused: str = ""

    @property
    def verdict(self) -> str:
        """Return refused, differs, broken or whole."""
        if self.refused:
            return "refused"
        return "differs" if self.differences else "broken" if self.broken_rules else "whole"


def import_folder(folder: Path, *, export: bool) -> Iterator[Result]:
    """Yield what becomes of every recipe below a folder."""
    for file in sorted(folder.rglob("*.y*ml")):
        name = str(file.relative_to(folder))
        try:
            yield from (
                _imported(name, recipe, export=export)
                for recipe in read_recipes(str(file), None, shipped_settings().hardware)
            )
        except ConfigurationError as error:
            yield Result(name, refused=str(error))


def _imported(name: str, recipe: Recipe, *, export: bool) -> Result:
    kept, texts = written_recipe(recipe, ())
    settings, plan = planned(kept, texts)
    errors = only_errors(check(settings.trial_spec))
    rules = tuple(f"{error.path}: found {error.found}, expected {error.expected}" for error in errors)
    unequal = differences(kept, settings.trial_spec, plan)
    if export:
        unequal += tuple(_changed_on_the_way(settings))
    return Result(name, unequal, rules, kept.left_out)


def _changed_on_the_way(settings: Settings) -> Iterator[str]:
    """Yield what a trial has otherwise after it went out and came back."""
    image = settings.cluster.container_image or "an/image:of-its-own"
    facts = settings.cluster.model_copy(update={"container_image": image})
    for target in get_args(Target):
        exported = exported_trial(settings.trial_spec, facts, target, settings.load.target_qps)
        yield from (f"back from {target}: {line}" for line in exported.differences or ())


def main() -> None:
    """Print what is not whole, what is left out how often, and the number of each verdict."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--verbose", action="store_true", help="print the whole ones too")
    parser.add_argument("--export", action="store_true", help="send each out and back again")
    arguments = parser.parse_args()
    verdicts: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for result in import_folder(arguments.folder, export=arguments.export):
        verdicts[result.verdict] += 1
        left_out.update({f"{part.path}: {part.reason}" for part in result.left_out})
        if arguments.verbose or result.verdict != "whole":
            reasons = (*result.differences, *result.broken_rules, *filter(None, [result.refused]))
            print(f"{result.verdict:<8} {result.file}", *reasons, sep="\n  ")
    print(*(f"{count:>4} x {text}" for text, count in left_out.most_common()), sep="\n")
    print(
        ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in ("whole", "broken", "differs", "refused"))
    )
    sys.exit(verdicts["whole"] != verdicts.total())


if __name__ == "__main__":
    main()
