"""Read rows of InferenceX's table of deployments, each with the recipe of srt-slurm that it runs.

Source: SemiAnalysisAI/InferenceX, configs/nvidia-master.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from tune.errors import ConfigurationError
from tune.recipes.document import Document, Section
from tune.recipes.recipe import ClosedLoop, LeftOut, Recipe
from tune.recipes.srt_slurm import read_srt_slurm
from tune.recipes.yaml_documents import read_documents
from tune.spec.split import ROLES

_CONFIG_FILE = "CONFIG_FILE="
_FRAMEWORKS = ("dynamo-trt", "dynamo-trtllm", "dynamo-vllm")
_REASON = "its config file is what runs, and tune's own load client sends"
_RECIPES, _STORED_IN = "recipes/", PurePosixPath("benchmarks", "multi_node", "srt-slurm-recipes")
"""A path in a row, and where InferenceX keeps the file: its launcher copies the second to the first."""


def is_inferencex(document: Document) -> bool:
    """Return whether a document has the outline of InferenceX's table, or of a part of it."""
    rows = document.content.values() if isinstance(document.content, dict) else ()
    return bool(rows) and all(isinstance(row, dict) and "framework" in row for row in rows)


def read_inferencex(document: Document, selector: str | None) -> list[Recipe]:
    """Return the recipes of the rows whose key or config file `selector` fits, a pattern with `*`.

    Raises ConfigurationError where none fits, a row runs another framework, and its config file is not found.
    """
    root = document.root()
    recipes: list[Recipe] = []
    for key in root.content:
        row = root.section(key)
        for point in _points(row):
            file = _config_file(point)
            names = (key, *([Path(file).stem] if file else []))
            if selector is not None and not any(fnmatchcase(name, selector) for name in names):
                continue
            _require_framework(row)
            if file is None:
                raise point.section("prefill").missing("additional-settings", f"{_CONFIG_FILE}FILE")
            recipes.append(_recipe(document, row, point, file))
    if not recipes:
        raise ConfigurationError(
            f"recipe: found {document.file}:{selector}; expected one of {', '.join(root.content)}, or the "
            "name of a config file in one of them. Nothing was written."
        )
    return recipes


def _points(row: Section) -> Iterator[Section]:
    """Yield the points of a row's search space."""
    for scenario in row.section("scenarios").content:
        for lengths in row.section("scenarios").sections(scenario):
            yield from lengths.sections("search-space")


def _config_file(point: Section) -> str | None:
    for place, text in point.section("prefill").items("additional-settings"):
        if isinstance(text, str) and text.startswith(_CONFIG_FILE):
            point.document.used.add(place)
            return text.removeprefix(_CONFIG_FILE)
    return None


def _require_framework(row: Section) -> None:
    if row.required_text("framework") not in _FRAMEWORKS:
        expected = f"{', '.join(_FRAMEWORKS)}, whose config files are recipes that tune reads"
        raise row.wrong("framework", expected)


def _recipe(document: Document, row: Section, point: Section, file: str) -> Recipe:
    """Return the recipe of a config file with the image of its row, and what the two disagree in."""
    (recipe_document,) = read_documents(_found(document, point, file))
    recipe = read_srt_slurm(recipe_document)
    image, model = row.required_text("image"), row.text("model")
    stated = model if model and "/" in model else None
    disagreements = tuple(_disagreements(point, recipe))
    if isinstance(recipe.arrivals, ClosedLoop):
        point.accept("conc-list", list(recipe.arrivals.users))
    of_row = Section(document, row.place, {k: v for k, v in row.content.items() if k != "scenarios"})
    return replace(
        recipe,
        name=Path(file).stem,
        origin=f"{recipe.origin}, from {document.file}",
        cluster={**recipe.cluster, "container_image": image},
        model=replace(recipe.model, repository=recipe.model.repository or stated),
        left_out=(
            *(part for part in recipe.left_out if part.path != "model.container"),
            *disagreements,
            *(
                replace(part, reason=_REASON)
                for section in (of_row, point)
                for part in document.left_out_of(section, {})
            ),
        ),
    )


def _found(document: Document, point: Section, file: str) -> Path:
    """Return where a config file is: below the table's folder or one around it."""
    stored = _STORED_IN / file.removeprefix(_RECIPES)
    tried = [folder / name for folder in Path(document.file).absolute().parents for name in (file, stored)]
    for path in tried:
        if path.is_file():
            return path
    place = (*point.place, "prefill", "additional-settings")
    found = f"{_CONFIG_FILE}{file}, which is not there"
    raise document.error(place, found, f"that file below a folder around the table, such as {tried[0]}")


def _disagreements(point: Section, recipe: Recipe) -> Iterator[LeftOut]:
    """Yield what a row says of the workers otherwise than its config file, which is what runs."""
    for role in ROLES:
        workers = point.section(role).number_of("num-worker", least=0)
        pool = recipe.pools.get(role)
        if workers is not None and workers != (pool.workers if pool else 0):
            place = (*point.place, role, "num-worker")
            reason = f"its config file, which is what runs, has {pool.workers if pool else 0}"
            yield LeftOut(f"{role}.num-worker", str(workers), point.document.line(place), reason)
