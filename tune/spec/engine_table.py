"""Name the engines that a stack may have, and where their code is.

The table holds references instead of classes: settings are validated below `tune.engines`, and a command
imports the engine that it uses and no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from tune.spec.engine import Engine


@dataclass(frozen=True)
class EngineReference:
    """Refer to the two classes of an engine, each as MODULE:CLASS.

    `settings` is the subclass of Engine that `prefill` and `decode` are validated by; `adapter` has the
    methods of EngineAdapter (tune/engines/base.py) and is made without arguments. `recipe_name` is what
    recipes of other programs call the engine, None where none is read or written; then the adapter has the
    methods of EngineFileReader too. `recipe_options` are the options of `stack` and of every pool with which
    its recipes are composed, None where these follow Dynamo's generation. `kernels_name` is what
    AIConfigurator calls the engine, None where it has no kernels of it. With `experts_take_mxfp8` its experts
    in MXFP4 take activations in MXFP8 on Blackwell.
    """

    settings: str
    adapter: str
    recipe_name: str | None = None
    recipe_options: tuple[str, str] | None = None
    kernels_name: str | None = None
    experts_take_mxfp8: bool = False


ENGINES: dict[str, EngineReference] = {
    "trtllm": EngineReference(
        settings="tune.engines.trtllm.trtllm_engine:TrtLlmEngine",
        adapter="tune.engines.trtllm.adapter:TrtLlm",
        recipe_name="trtllm",
        kernels_name="trtllm",
        experts_take_mxfp8=True,
    ),
    "dynamo_mocker": EngineReference(
        settings="tune.engines.trtllm.trtllm_engine:TrtLlmEngine",
        adapter="tune.engines.dynamo_mocker.adapter:DynamoMocker",
        kernels_name="trtllm",
        experts_take_mxfp8=True,
    ),
    "dynamo_vllm": EngineReference(
        settings="tune.engines.dynamo_vllm.vllm_engine:VllmEngine",
        adapter="tune.engines.dynamo_vllm.adapter:DynamoVllm",
        recipe_name="vllm",
        recipe_options=("dynamo_vllm", "vllm"),
        kernels_name="vllm",
    ),
}
"""The engines by the name that the setting `stack.engine` gives them. The mock engine stands for workers of
TensorRT-LLM and has their settings."""


def _named_in_the_table(engine: str) -> str:
    if engine not in ENGINES:
        raise PydanticCustomError(
            "engine", f"expected one of {', '.join(ENGINES)}. Choose one of them, or a stack of conf/stack"
        )
    return engine


EngineName = Annotated[str, AfterValidator(_named_in_the_table)]
"""Name of an engine of the table."""


def engine_in_recipes(recipe_name: str) -> str | None:
    """Return the engine that recipes of other programs call `recipe_name`, None where there is none."""
    return next((name for name, entry in ENGINES.items() if entry.recipe_name == recipe_name), None)


def engines_in_recipes() -> tuple[str, ...]:
    """Return the engines that are read from recipes of other programs."""
    return tuple(name for name, entry in ENGINES.items() if entry.recipe_name)


def recipe_names() -> tuple[str, ...]:
    """Return what recipes of other programs call the engines that are read from them."""
    return tuple(entry.recipe_name for entry in ENGINES.values() if entry.recipe_name)


@cache
def imported(reference: str) -> Any:
    """Return the class that `reference` names, and import its module on first use."""
    return resolve_name(reference)


def settings_class(engine: str) -> type[Engine]:
    """Return the class of the settings of the engine `engine`, an EngineName."""
    named: type[Engine] = imported(ENGINES[engine].settings)
    return named
