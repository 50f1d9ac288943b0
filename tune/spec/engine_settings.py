"""List the settings that a pool of workers may have: a class for each way to spell an engine's settings.

An engine whose users know other key names adds its class to `SETTINGS_CLASSES`.
"""

from __future__ import annotations

from typing import Annotated, Union

from pydantic import GetPydanticSchema

from tune.spec.engine import Engine
from tune.spec.trtllm_engine import TrtLlmEngine

SETTINGS_CLASSES: tuple[type[Engine], ...] = (TrtLlmEngine,)

EngineSettings = Annotated[
    Engine,
    GetPydanticSchema(lambda _, handler: handler.generate_schema(Union[SETTINGS_CLASSES])),  # noqa: UP007
]
"""Type of the settings `prefill` and `decode`: code sees an Engine, input is validated against the classes of
the table."""
