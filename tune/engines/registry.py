"""Return the adapter of an engine of the table in tune/spec/engine_table.py."""

from __future__ import annotations

from tune.engines.base import EngineAdapter, EngineFileReader
from tune.spec.engine_table import ENGINES, imported
from tune.spec.trial import TrialSpec


def adapter_named(engine: str) -> EngineAdapter:
    """Return the adapter of the engine `engine`, an EngineName."""
    adapter: EngineAdapter = imported(ENGINES[engine].adapter)()
    return adapter


def engine_of(spec: TrialSpec) -> EngineAdapter:
    """Return the adapter of the engine of `spec`."""
    return adapter_named(spec.stack.engine)


def file_reader(engine: str) -> EngineFileReader:
    """Return what reads the files of the engine `engine`, an EngineName with recipes."""
    reader = imported(ENGINES[engine].adapter)()
    assert isinstance(reader, EngineFileReader)
    return reader
