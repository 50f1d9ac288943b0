"""Name the engines that a stack may have.

A new engine is one package in tune/engines, one line in `ENGINES` here and, where it has key names of its
own, one line in tune/spec/engine_settings.py.
"""

from __future__ import annotations

from tune.engines.base import EngineAdapter
from tune.engines.dynamo_mocker.adapter import DynamoMocker
from tune.engines.trtllm.adapter import TrtLlm
from tune.errors import ConfigurationError
from tune.spec.trial import TrialSpec

ENGINES: dict[str, EngineAdapter] = {
    "trtllm": TrtLlm(),
    "dynamo_mocker": DynamoMocker(),
}
"""The adapter of each engine, by the name that the setting `stack.engine` gives it."""


def engine_of(spec: TrialSpec) -> EngineAdapter:
    """Return the adapter of the engine of `spec`. Raises ConfigurationError where the table has none."""
    adapter = ENGINES.get(spec.stack.engine)
    if adapter is None:
        raise ConfigurationError(
            f"stack.engine: found {spec.stack.engine!r}, expected one of {', '.join(ENGINES)}. "
            "Choose one of them, or a stack of conf/stack."
        )
    return adapter
