"""List the path of every setting that some option, engine or sweep has, for hints at misspelt ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel

from tune.spec.engine import Engine
from tune.spec.engine_table import ENGINES, settings_class
from tune.spec.settings import Settings


def class_paths(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """Yield the path of every setting and group of `model`, those of a pool over all engines.

    A setting may come twice, and one that a configuration leaves out comes too.
    """
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        yield path
        for part in (field.annotation, *get_args(field.annotation)):
            if part is Engine:
                for engine in ENGINES:
                    yield from class_paths(settings_class(engine), f"{path}.")
            elif isinstance(part, type) and issubclass(part, BaseModel):
                yield from class_paths(part, f"{path}.")
