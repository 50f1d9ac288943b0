"""Recognise the format of a recipe, and read it."""

from __future__ import annotations

from pathlib import Path

from tune.errors import ConfigurationError
from tune.recipes.bundle import is_bundle, read_bundle
from tune.recipes.document import Document
from tune.recipes.dynamo_graph import is_dynamo_graph, read_dynamo_graph
from tune.recipes.engine_pair import read_engine_pair
from tune.recipes.inferencex import is_inferencex, read_inferencex
from tune.recipes.kept_settings import apply_kept, read_kept
from tune.recipes.options import option_name
from tune.recipes.recipe import Recipe
from tune.recipes.srt_slurm import is_srt_slurm, read_srt_slurm
from tune.recipes.trtllm_slurm import is_trtllm_slurm, read_trtllm_slurm
from tune.recipes.variants import expand
from tune.recipes.yaml_documents import read_documents
from tune.spec.hardware import Hardware
from tune.spec.split import Split


def read_recipes(name: str, split: Split | None, hardware: Hardware) -> list[Recipe]:
    """Return the recipes that a name leads to.

    Parameters
    ----------
    name
        A file, or a folder with two engine files. `FILE:SELECTOR` chooses variants or rows of a file.
    split, hardware
        The numbers of workers and the rack for engine files, which state neither; `split` is None where
        nobody stated one.

    Returns
    -------
    list[Recipe]
        The recipes, each with a name of its own.

    Raises
    ------
    ConfigurationError
        For a file that cannot be read, one of no known format, and two recipes of one name.
    """
    file, selector = _split(name)
    if is_bundle(file):
        return [read_bundle(file)]
    if file.is_dir():
        return [read_engine_pair(file, split, hardware)]
    kept, recipes = None, _read(file, read_documents(file), selector)
    if len(recipes) == 1:
        kept = read_kept(file)
        recipes = [apply_kept(recipe, kept) for recipe in recipes]
    names = [option_name(recipe) for recipe in recipes]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise ConfigurationError(
            f"{file}: found several recipes of the name {repeated}; expected one of each name. Choose with "
            f"{file}:SELECTOR. Nothing was written."
        )
    return recipes


def _read(file: Path, documents: list[Document], selector: str | None) -> list[Recipe]:
    if is_dynamo_graph(documents):
        return [read_dynamo_graph(documents)]
    if len(documents) == 1:
        (document,) = documents
        if is_trtllm_slurm(document):
            return [read_trtllm_slurm(document)]
        if is_srt_slurm(document):
            return [read_srt_slurm(variant) for variant in expand(document, selector)]
        if is_inferencex(document):
            return read_inferencex(document, selector)
    raise ConfigurationError(
        f"{file}, line 1: found no recipe that is known; expected one of srt-slurm (resources and "
        "backend, or roles), rows of InferenceX (framework, scenarios), TensorRT-LLM's benchmark on Slurm "
        "(hardware, worker_config) or a DynamoGraphDeployment. Nothing was written."
    )


def _split(name: str) -> tuple[Path, str | None]:
    """Return the file and the selector of `FILE:SELECTOR`."""
    file, colon, selector = name.rpartition(":")
    if Path(name).exists() or not colon:
        return Path(name), None
    return Path(file), selector
