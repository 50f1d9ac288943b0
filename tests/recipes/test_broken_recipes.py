"""Test that a recipe with a value of the wrong kind gets one message with file and line."""

from __future__ import annotations

import copy
import datetime
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.recipe_files import DATA, Changed, only

from tune.cli.imported_recipe import planned, written_recipe
from tune.errors import ConfigurationError
from tune.recipes.plan_differences import differences

FILES = (
    "schema1.yaml",
    "schema2.yaml",
    "trtllm_slurm.yaml",
    "dynamo_graph.yaml",
    "dynamo_components.yaml",
    "vllm_graph.yaml",
    "wide_decode.yaml",
    "aggregated.yaml",
    "aggregated_roles.yaml",
    "aggregated_graph.yaml",
)
VALUES: tuple[Any, ...] = (
    None, [], {}, -1, 0, 1.5, 1000, float("nan"), True, "", "x", "8192", "${x}", [1, "a"], [{}], {"a": 1},
    datetime.date(2026, 1, 1),
)  # fmt: skip
MUTATIONS_A_FILE = 30

COUNT = "expected a whole number, 1 or more"
GPUS = "expected a whole number from 1 to 10000"


@pytest.mark.parametrize(
    ("name", "before", "after", "message"),
    [
        (
            "schema2.yaml",
            "precision: fp4",
            "precision: fp6",
            "line 6: model.precision: found fp6; expected one of fp8,",
        ),
        (
            "schema2.yaml",
            "max_num_tokens: 8192",
            'max_num_tokens: "8192"',
            f"max_num_tokens: found the text 8192; {COUNT}",
        ),
        (
            "schema2.yaml",
            "max_batch_size: 16\n",
            "&a max_batch_size: 16\n      x: &x [*x]\n",
            "line 25: found an alias inside",
        ),
        ("schema2.yaml", "max_batch_size: 16\n", f"max_batch_size: {'[' * 2000}\n", "too deep to be read"),
        (
            "schema2.yaml",
            "name: example_schema2",
            "name: 2026-13-01",
            "line 2: found what YAML takes for a number",
        ),
        (
            "schema1.yaml",
            "identity:\n  model:\n    repo:",
            "identity:",
            "identity: found meta-llama/Llama-3.3-70B-Instruct; expected a mapping",
        ),
        (
            "schema1.yaml",
            "max_seq_len: 4224",
            'max_seq_len: "4224"',
            f"max_seq_len: found the text 4224; {COUNT}",
        ),
        (
            "schema1.yaml",
            "cache_transceiver_config:",
            "cache_transceiver_config: [NIXL]\n      other:",
            "cache_transceiver_config: found [NIXL]; expected a mapping",
        ),
        ("trtllm_slurm.yaml", "backend: DEFAULT", "backend: [UCX]", "backend: found [UCX]; expected a text"),
        (
            "trtllm_slurm.yaml",
            "tensor_parallel_size: 8",
            "tensor_parallel_size: x",
            f"found the text x; {GPUS}",
        ),
        (
            "trtllm_slurm.yaml",
            "pipeline_parallel_size: 1",
            "pipeline_parallel_size: [1]",
            f"found [1]; {GPUS}",
        ),
        (
            "dynamo_components.yaml",
            "[{name: config, mountPath",
            "[{name: [a], mountPath",
            "name: found [a]; expected a text",
        ),
        (
            "vllm_graph.yaml",
            "--max-model-len 21000",
            "--max-model-len long",
            f"max_model_len: found the text long; {COUNT}",
        ),
    ],
)
def test_a_value_of_another_kind_is_named(
    name: str, before: str, after: str, message: str, changed: Changed
) -> None:
    with pytest.raises(ConfigurationError, match=name) as error:
        only(changed(name, (before, after)))
    assert message in str(error.value)


@pytest.mark.slow  # composes configurations
@pytest.mark.parametrize(
    ("name", "before", "after", "setting"),
    [
        (
            "dynamo_graph.yaml",
            "{dtype: fp8, enable_block_reuse: false",
            "{dtype: fp9, enable_block_reuse: false",
            "decode.kv_cache_config.dtype",
        ),
        (
            "vllm_graph.yaml",
            "-tp 2 --kv-cache-dtype fp8",
            "-tp 2 --kv-cache-dtype fp7",
            "prefill.kv_cache_dtype",
        ),
        ("vllm_graph.yaml", "--kv-cache-dtype=fp8", "--kv-cache-dtype=fp7", "decode.kv_cache_dtype"),
        (
            "trtllm_slurm.yaml",
            "backend: DEFAULT",
            "backend: CARRIER",
            "decode.cache_transceiver_config.backend",
        ),
        (
            "schema1.yaml",
            "free_gpu_memory_fraction: 0.85",
            "free_gpu_memory_fraction: 1.85",
            "decode.kv_cache_config.free_gpu_memory_fraction",
        ),
        ("schema2.yaml", "max_batch_size: 16", "max_batch_size: 0", "prefill.max_batch_size"),
        ("schema1.yaml", 'time_limit: "03:00:00"', "time_limit: soon", "cluster.time_limit"),
    ],
)
def test_a_value_that_a_setting_refuses_is_named_with_its_line(
    name: str, before: str, after: str, setting: str, changed: Changed
) -> None:
    file = changed(name, (before, after))
    (number, *_) = (n for n, line in enumerate(file.read_text().splitlines(), 1) if after in line)
    with pytest.raises(ConfigurationError) as error:
        planned(*written_recipe(only(file), ()))
    messages = str(error.value).splitlines()
    assert any(message.startswith(f"{file}, line {number}: {setting}: found ") for message in messages), (
        messages
    )
    assert messages[-1].endswith("Nothing was written.")


@pytest.mark.parametrize(
    ("name", "before", "after", "message"),
    [
        (
            "dynamo_graph.yaml",
            "replicas: 2",
            "replicas: 1000000000",
            "replicas: found 1000000000; expected a whole number from 0 to 10000",
        ),
        (
            "dynamo_graph.yaml",
            'gpu: "4"',
            'gpu: "1000000000"',
            "gpu: found 1000000000; expected a whole number from 0 to 10000",
        ),
        (
            "schema1.yaml",
            "prefill_workers: 2",
            "prefill_workers: 10001",
            "prefill_workers: found 10001; expected",
        ),
        (
            "trtllm_slurm.yaml",
            "tensor_parallel_size: 8",
            "tensor_parallel_size: 1000000000",
            "found 1000000000; expected",
        ),
        ("vllm_graph.yaml", "-tp 2", "-tp 1000000000", "tensor_parallel_size: found 1000000000; expected"),
    ],
)
def test_numbers_beyond_any_rack_are_named_at_once(
    name: str, before: str, after: str, message: str, changed: Changed
) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name}, line \d+: ") as error:
        only(changed(name, (before, after)))
    assert message in str(error.value)


@pytest.mark.slow  # composes hundreds of configurations
@pytest.mark.parametrize("name", FILES)
def test_whatever_a_value_becomes_there_is_a_plan_or_one_message(name: str, tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all((DATA / name).read_text()))
    choice = random.Random(name)
    places = list(_places(documents, ()))
    refused = 0
    for place in choice.choices(places, k=MUTATIONS_A_FILE):
        value = choice.choice(VALUES)
        file = tmp_path / name
        file.write_text(yaml.safe_dump_all(_changed(documents, place, value), sort_keys=False))
        try:
            recipe, texts = written_recipe(only(file), ())
            settings, plan = planned(recipe, texts)
            differences(recipe, settings.trial_spec, plan)
        except ConfigurationError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{place} = {value!r}") from error
    assert 0 < refused < MUTATIONS_A_FILE


def _places(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value inside a document, not to the documents."""
    if len(place) > 1:
        yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for key, part in inner:
        yield from _places(part, (*place, key))


def _changed(documents: list[Any], place: tuple[Any, ...], value: Any) -> list[Any]:
    changed = copy.deepcopy(documents)
    around: Any = changed
    for key in place[:-1]:
        around = around[key]
    around[place[-1]] = value
    return changed
