"""Read the command line of a container that runs Dynamo: its module, its options, and what these say."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune.recipes.document import Document, Place, Section

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")

_ENGINE_OPTIONS: Mapping[str, tuple[str, type]] = {
    "--tensor-parallel-size": ("tensor_parallel_size", int),
    "--pipeline-parallel-size": ("pipeline_parallel_size", int),
    "--expert-parallel-size": ("moe_expert_parallel_size", int),
    "--max-batch-size": ("max_batch_size", int),
    "--max-num-tokens": ("max_num_tokens", int),
    "--max-seq-len": ("max_seq_len", int),
    "--kv-block-size": ("kv_cache_config.tokens_per_block", int),
    "--free-gpu-memory-fraction": ("kv_cache_config.free_gpu_memory_fraction", float),
}
"""Keys of the engine's YAML that options of the worker stand for; the YAML wins over them.
Source: ai-dynamo/dynamo, components/src/dynamo/trtllm (backend_args.py, llm_worker.py)."""


@dataclass(frozen=True)
class DynamoCommand:
    """Hold a command line: the module that python3 runs, and options with their values ("" for none)."""

    module: str | None
    options: Mapping[str, str]


def read_command(container: Section, env: Mapping[str, str | None]) -> DynamoCommand:
    """Return the command of a container, with variables of `env` put in.

    Raises ConfigurationError for a list whose entries are no texts.
    """
    words = [*_texts(container, "command"), *_texts(container, "args")]
    if len(words) > 2 and words[0].endswith("sh") and words[1] == "-c":
        words = shlex.split(words[2].replace("\\\n", " "))
    words = [_VARIABLE.sub(lambda found: env.get(found[1] or found[2]) or found[0], word) for word in words]
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else None
    options: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            options[name] = value
        elif name:
            options[name] = word
            name = ""
    return DynamoCommand(module, options)


def keys_of_worker(
    command: DynamoCommand, file_keys: Mapping[str, Any], container: Section
) -> dict[str, Any]:
    """Return the keys that reach the engine: options, over them its file, over that the override.

    Parameters
    ----------
    command
        The worker's command.
    file_keys
        The keys of the engine's file.
    container
        Where the command stands, for errors.

    Returns
    -------
    dict[str, Any]
        The keys.

    Raises
    ------
    ConfigurationError
        For an option that is no number, or an override that is no JSON.
    """
    keys: dict[str, Any] = {}
    for option, (path, kind) in _ENGINE_OPTIONS.items():
        if option in command.options:
            try:
                value: Any = kind(command.options[option])
            except ValueError:
                raise _wrong(container, f"{option} {command.options[option]}", "a number") from None
            _put(keys, path, value)
    keys = merged_keys(keys, file_keys)
    override = command.options.get("--override-engine-args")
    if override:
        try:
            keys = merged_keys(keys, json.loads(override))
        except (ValueError, AttributeError):
            raise _wrong(container, f"--override-engine-args {override}", "a mapping in JSON") from None
    return keys


def other_options(command: DynamoCommand) -> dict[str, str]:
    """Return the options of a worker that are no keys of its engine."""
    known = {*_ENGINE_OPTIONS, "--override-engine-args", "--extra-engine-args"}
    return {name: value for name, value in command.options.items() if name not in known}


def merged_keys(keys: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `keys` with those of `over` in their place; mappings are merged."""
    merged = dict(keys)
    for name, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = merged_keys(merged[name], value) if both else value
    return merged


def _texts(container: Section, key: str) -> list[str]:
    texts = []
    for place, value in container.items(key):
        if not isinstance(value, str):
            raise container.document.error(place, repr(value), "a text, in quotes")
        container.document.used.add(place)
        texts.append(value)
    return texts


def _put(keys: dict[str, Any], path: str, value: Any) -> None:
    *groups, name = path.split(".")
    for group in groups:
        keys = keys.setdefault(group, {})
    keys[name] = value


def _wrong(container: Section, found: str, expected: str) -> Exception:
    document: Document = container.document
    place: Place = (*container.place, "args")
    return document.error(place, found, expected)
