"""Check the keys of one pool's YAML: those that clash, and those that the engine does not have."""

from __future__ import annotations

from collections.abc import Iterator

from tune.engines.trtllm.engine_pools import yaml_generation
from tune.engines.trtllm.extra_keys import TYPED_KEYS, conflicting_keys, keys_beside
from tune.engines.trtllm.key_schema import check_keys, near_keys, read_key_schema
from tune.engines.trtllm.trtllm_engine import TrtLlmEngine
from tune.engines.trtllm.yaml_text import written_keys
from tune.spec.findings import Finding
from tune.spec.split import Role
from tune.spec.stack import Stack


def check_conflicts(stack: Stack, engine: TrtLlmEngine, role: Role) -> Iterator[Finding]:
    """Yield an error for every key that cannot be passed through to the generation of `stack`.

    Parameters
    ----------
    stack
        Gives the generation of the engine's YAML.
    engine
        The settings of the pool.
    role
        The pool; the paths of findings begin with it.
    """
    for path, (found, reason) in conflicting_keys(engine, yaml_generation(stack)).items():
        group, _, key = path.rpartition(".")
        near = near_keys(key, keys_beside(path) - {key})
        if near:
            expected = f"{group}.{near[0]}, a key of the engine"
        else:
            expected = "no such key in extra" if path.startswith("extra.") else "no such key"
        yield Finding("error", f"{role}.{path}", repr(found), expected, reason, "TensorRT-LLM, llm_args.py")


def check_spelling(stack: Stack, engine: TrtLlmEngine, role: Role) -> Iterator[Finding]:
    """Yield keys and values that the engine would refuse, as far as its arguments are known.

    Raises ConfigurationError where `stack.engine_schema` cannot be read.

    Parameters
    ----------
    stack
        Gives the generation of the engine's YAML and the file with the arguments.
    engine
        The settings of the pool.
    role
        The pool; the paths of findings begin with it.
    """
    generation = yaml_generation(stack)
    schema = read_key_schema(stack.engine_schema, generation)
    source = stack.engine_schema or "TensorRT-LLM, llm_args_golden_manifest.json (92e3075)"
    if generation == "flat":
        source = "TensorRT-LLM cd2f9fa (1.0.0rc), llm_args.py"
    for fault in check_keys(written_keys(engine, generation), schema):
        typed = fault.path.partition(".")[0] in TYPED_KEYS
        yield Finding(
            "error" if fault.is_certain else "warning",
            f"{role}.{fault.path}" if typed else f"{role}.extra.{fault.path}",
            fault.found,
            fault.expected,
            "the engine refuses keys and values that it does not know, and its worker ends",
            source,
        )
