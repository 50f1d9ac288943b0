"""Read the engine files of a published deployment: a folder with a YAML file for each role."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from tune.engines.registry import file_reader
from tune.errors import ConfigurationError
from tune.recipes.document import Document
from tune.recipes.engine_keys import require_shapes
from tune.recipes.recipe import LeftOut, Lines, Pool, Rack, Recipe, Routing, ServedModel
from tune.recipes.yaml_documents import read_documents
from tune.spec.engine_table import engines_in_recipes
from tune.spec.hardware import Hardware
from tune.spec.split import ROLES, Role, Split

_NAMES: Mapping[Role, tuple[str, ...]] = {
    "prefill": ("prefill", "ctx", "context"),
    "decode": ("decode", "gen", "generation"),
}
"""What the name of a role's file holds, in small letters."""


def read_engine_pair(folder: Path, split: Split | None, hardware: Hardware) -> Recipe:
    """Return the recipe of a folder with two engine files.

    Parameters
    ----------
    folder
        Holds the files; the name of each holds that of its role.
    split
        The numbers of workers, which no engine file states; None where nobody stated them.
    hardware
        The rack that the workers run on.

    Returns
    -------
    Recipe
        The engines on the fewest nodes that hold them.

    Raises
    ------
    ConfigurationError
        Where there is not one file for each role, or no number of workers.
    """
    (engine,) = (name for name in engines_in_recipes() if file_reader(name).has_file)
    documents = {role: _file_of(folder, role) for role in ROLES}
    if split is None:
        raise ConfigurationError(
            f"{folder}: found engine files, which state no workers; expected their numbers: "
            "split.prefill_workers=N split.decode_workers=N. Nothing was written."
        )
    workers = {"prefill": split.prefill_workers, "decode": split.decode_workers}
    pools = {role: _pool(engine, document, workers[role]) for role, document in documents.items()}
    gpus = sum(pool.workers * pool.gpus_per_worker for pool in pools.values())
    head_nodes = int(split.head == "none")
    return Recipe(
        name=folder.name,
        origin=f"{folder}, an engine pair",
        engine=engine,
        pools=pools,
        rack=Rack(
            math.ceil(gpus / hardware.gpus_per_node) + head_nodes, hardware.gpus_per_node, None, split.head
        ),
        routing=Routing(frontends=split.frontends),
        lengths=None,
        model=ServedModel(path=""),
        cluster={},
        dynamo=None,
        left_out=(LeftOut("model", "", 0, "engine files name none: that of the command line"),),
    )


def _file_of(folder: Path, role: Role) -> Document:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
    found = [file for file in files if any(name in file.stem.lower() for name in _NAMES[role])]
    if len(found) != 1:
        names = ", ".join(file.name for file in found or files) or "no YAML file"
        raise ConfigurationError(
            f"{folder}: found {names}; expected one YAML file of the {role} engine, with "
            f"{' or '.join(_NAMES[role])} in its name. Nothing was written."
        )
    (document,) = read_documents(found[0])
    return document


def _pool(engine: str, document: Document, workers: int) -> Pool:
    keys = dict(document.root().content)
    if not keys:
        raise document.error((), "an empty mapping", "the keys of an engine")
    require_shapes(document, (), keys, engine)
    return Pool(workers, file_reader(engine).gpus_of_keys(keys), keys, {}, (Lines(document.file),))
