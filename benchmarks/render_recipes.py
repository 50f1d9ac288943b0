"""Render public recipes of disaggregated TensorRT-LLM deployments, and compare each with itself.

    python benchmarks/render_recipes.py FOLDER [--verbose]

FOLDER holds recipes in the form of NVIDIA's srt-slurm, at any depth. Each becomes one folder of configuration
(prefill, decode, split, hardware), is composed with --config-dir, checked and rendered as `action=plan` does.
Compared are the engine YAML as a parser reads it, with the sizes of CUDA graphs sorted as the engine sorts
them, the environment of the workers, their number and their GPUs. Model, memory, load and frontend are not
compared: a stand-in that fits everywhere takes the place of the model.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tune.config import compose_overrides
from tune.deploy.plan import LaunchPlan, render
from tune.engines.check import check
from tune.engines.trtllm.extra_keys import TYPED_KEYS
from tune.errors import ConfigurationError
from tune.spec.findings import only_errors

Recipe = Mapping[str, Any]

ROLES = ("prefill", "decode")
HARDWARE = Path(__file__).parents[1] / "conf" / "hardware" / "gb200_nvl72.yaml"
STAND_IN = ("model=llama3_1_70b_fp4", "model.checkpoint_bytes=1000000000", "model.context_tokens=null")


@dataclass(frozen=True)
class Comparison:
    """Hold what a recipe and its plan differ in; `refused` says why there is no plan."""

    file: str
    differences: tuple[str, ...] = ()
    refused: str = ""

    @property
    def verdict(self) -> str:
        """Return refused, differs or equal."""
        return "refused" if self.refused else "differs" if self.differences else "equal"


def read_recipes(folder: Path) -> Iterator[tuple[str, Recipe]]:
    """Yield the path and the content of every recipe of a disaggregated TensorRT-LLM deployment."""
    for file in sorted(folder.rglob("*.y*ml")):
        recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
        backend = recipe.get("backend") if isinstance(recipe, dict) else None
        if isinstance(backend, dict) and {*ROLES} <= (backend.get("trtllm_config") or {}).keys():
            yield str(file.relative_to(folder)), recipe


def compare(file: str, recipe: Recipe) -> Comparison:
    """Return how the plan of a recipe differs from it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Comparison(file, tuple(_differences(recipe, _rendered(recipe, Path(folder)))))
        except ConfigurationError as error:
            return Comparison(file, refused=str(error))


def _rendered(recipe: Recipe, folder: Path) -> LaunchPlan:
    """Return the plan of a recipe. Raises ConfigurationError where it does not compose or breaks a rule."""
    for group, option in _options(recipe).items():
        (folder / group).mkdir()
        (folder / group / "recipe.yaml").write_text(yaml.safe_dump(option, sort_keys=False))
    groups = [f"{group}=recipe" for group in ("prefill", "decode", "split", "hardware")]
    words = [*groups, "stack=dynamo_v1", "cluster=slurm", *STAND_IN, *_load(recipe)]
    settings = compose_overrides(words, [str(folder)]).settings
    errors = only_errors(check(settings.trial_spec))
    if errors:
        raise ConfigurationError(f"{errors[0].path}: found {errors[0].found}, expected {errors[0].expected}")
    return render(settings.trial_spec, settings.cluster)


def _options(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return the content of one option of each group that a recipe decides."""
    resources = recipe["resources"]
    dedicated = bool((recipe.get("infra") or {}).get("etcd_nats_dedicated_node"))
    hardware = yaml.safe_load(HARDWARE.read_text(encoding="utf-8"))
    nodes = resources["prefill_nodes"] + resources["decode_nodes"] + dedicated
    return {
        **{role: _engine_option(recipe["backend"], role) for role in ROLES},
        "split": {
            "prefill_workers": resources["prefill_workers"],
            "decode_workers": resources["decode_workers"],
            "disaggregation_strategy": "prefill_first",
            "head": "none" if dedicated else "prefill",
        },
        "hardware": hardware | {"nodes": nodes, "gpus_per_node": resources["gpus_per_node"]},
    }


def _engine_option(backend: Recipe, role: str) -> dict[str, Any]:
    """Return the settings of a pool: typed keys under their names, any other key at the top in `extra`."""
    keys = backend["trtllm_config"][role]
    absent = {"backend": None, "disable_overlap_scheduler": None}
    typed = {key: value for key, value in keys.items() if key in TYPED_KEYS}
    extra = {key: value for key, value in keys.items() if key not in TYPED_KEYS}
    return absent | typed | {"extra": extra, "env": backend.get(f"{role}_environment") or {}}


def _load(recipe: Recipe) -> list[str]:
    """Return a load of the recipe's lengths; of one token where its benchmark has lengths of its own."""
    benchmark = recipe["benchmark"]
    tokens = {"inputs": benchmark.get("isl", 1), "outputs": benchmark.get("osl", 1)}
    return ["load=fixed", *(f"load.dataset.{side}.tokens={count}" for side, count in tokens.items())]


def _differences(recipe: Recipe, plan: LaunchPlan) -> Iterator[str]:
    for role in ROLES:
        wanted, written = recipe["backend"]["trtllm_config"][role], yaml.safe_load(plan.files[f"{role}.yaml"])
        yield from _unequal(f"{role}.yaml", _as_read(wanted), _as_read(written))
        workers = [process for process in plan.processes if process.role == role]
        if len(workers) != recipe["resources"][f"{role}_workers"]:
            yield f"{role}: {len(workers)} workers"
        for worker in workers:
            if len(worker.gpus) != _gpus(recipe["resources"], role):
                yield f"{worker.name}: {len(worker.gpus)} GPUs"
            environment = recipe["backend"].get(f"{role}_environment") or {}
            for name, value in environment.items():
                if worker.env.get(name) != str(value):
                    yield f"{worker.name}: {name}={worker.env.get(name)}"


def _gpus(resources: Recipe, role: str) -> int:
    """Return the GPUs of a worker: stated, or those of its nodes."""
    stated = resources.get(f"gpus_per_{role}")
    nodes, workers = resources[f"{role}_nodes"], resources[f"{role}_workers"]
    return int(stated or nodes * resources["gpus_per_node"] // workers)


def _as_read(keys: Recipe) -> dict[str, Any]:
    """Return an engine's YAML with the sizes of CUDA graphs as the engine sorts them."""
    graphs = keys.get("cuda_graph_config") or {}
    if "batch_sizes" not in graphs:
        return dict(keys)
    return {**keys, "cuda_graph_config": {**graphs, "batch_sizes": sorted(set(graphs["batch_sizes"]))}}


def _unequal(path: str, wanted: Any, written: Any) -> Iterator[str]:
    if isinstance(wanted, Mapping) and isinstance(written, Mapping):
        for key in {**wanted, **written}:
            yield from _unequal(f"{path}.{key}", wanted.get(key, "absent"), written.get(key, "absent"))
    elif wanted != written or type(wanted) is not type(written):
        yield f"{path}: {written!r}, in the recipe {wanted!r}"


def main() -> None:
    """Print one line a recipe that is not equal, and the number of each verdict; exit 1 where one is not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--verbose", action="store_true", help="print the equal ones too")
    arguments = parser.parse_args()
    verdicts: Counter[str] = Counter()
    for file, recipe in read_recipes(arguments.folder):
        compared = compare(file, recipe)
        verdicts[compared.verdict] += 1
        if arguments.verbose or compared.verdict != "equal":
            print(
                f"{compared.verdict:<8} {file}",
                *compared.differences,
                *filter(None, [compared.refused]),
                sep="\n  ",
            )
    print(", ".join(f"{verdicts[verdict]} {verdict}" for verdict in ("equal", "differs", "refused")))
    sys.exit(verdicts["equal"] != verdicts.total())


if __name__ == "__main__":
    main()
