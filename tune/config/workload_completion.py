"""Fill in what a load leaves open: samples, longest lengths and rate, from its file or its distributions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tune.errors import ConfigurationError
from tune.spec.base import MAX_COUNT
from tune.spec.dataset import Inputs, Outputs
from tune.spec.load import PUBLISHED_DATASET, Trace, recommended_qps
from tune.workload.length_files import find_lengths, read_rows

_LONGEST: dict[str, tuple[str, TypeAdapter[Any]]] = {
    "longest_prompt_tokens": ("inputs", TypeAdapter(Inputs)),
    "longest_answer_tokens": ("outputs", TypeAdapter(Outputs)),
}


def complete_workload(load: dict[str, Any]) -> None:
    """Replace null in `load`, a composed and not yet validated group, by what the file or distribution says.

    `dataset.name`, `dataset.samples`, `dataset.longest_*_tokens` and, of a trace, `target_qps` may be null.
    Values that do not validate are left for the validation. Raises ConfigurationError for a file that is not
    named or cannot be read.
    """
    dataset = load.get("dataset")
    if not isinstance(dataset, dict):
        return
    path = dataset.get("path")
    if isinstance(path, str) and not path.endswith(".pkl"):
        _complete_from_file(load, dataset, find_lengths(path))
        return
    if path is None and dataset.get("samples", "") is None:
        raise ConfigurationError(
            "load.dataset.path: found null; this load reads its requests from a file. Give "
            "load.dataset.path=FILE, a CSV or JSON lines with input_tokens and output_tokens."
        )
    for name, (group, adapter) in _LONGEST.items():
        if dataset.get(name, "") is None:
            dataset[name] = _longest(adapter, dataset.get(group))


def complete_rate(load: dict[str, Any], hardware: object) -> None:
    """Replace a rate of null in `load`, with the benchmark's workload, by the one that suits the rack.

    `load` and `hardware` are composed and not yet validated; where the size is none, the rate is that of one
    GPU. Any other workload says its rate itself, and a closed loop has none.
    """
    dataset = load.get("dataset")
    is_published = isinstance(dataset, dict) and dataset.get("name") == PUBLISHED_DATASET
    if not is_published or load.get("target_qps", "") is not None or load.get("trace"):
        return
    if load.get("mode") == "concurrency":
        return
    sizes = [hardware.get(name) for name in ("nodes", "gpus_per_node")] if isinstance(hardware, dict) else []
    counts = [size for size in sizes if isinstance(size, int) and 0 < size <= MAX_COUNT]
    load["target_qps"] = recommended_qps(math.prod(counts))


def _longest(adapter: TypeAdapter[Any], lengths: Any) -> int:
    """Return the longest of `lengths`; 1 where they do not validate, which is then all that is reported."""
    try:
        return int(adapter.validate_python(lengths).longest_tokens)
    except (ValidationError, AttributeError):
        return 1


def _complete_from_file(load: dict[str, Any], dataset: dict[str, Any], path: Path) -> None:
    """Fill in what `path` says; a file is not read where nothing is open."""
    try:
        trace = Trace.model_validate(load["trace"]) if load.get("trace") else None
    except ValidationError:
        return
    if dataset.get("name", "") is None:
        dataset["name"] = path.stem
    is_open = [name for name in ("samples", *_LONGEST) if dataset.get(name, "") is None]
    if not is_open and load.get("target_qps") is not None:
        return
    rows = read_rows(path, trace)
    found = {
        "samples": len(rows.inputs),
        "longest_prompt_tokens": int(rows.inputs.max()),
        "longest_answer_tokens": int(rows.outputs.max()),
    }
    dataset |= {name: found[name] for name in is_open}
    if trace and load.get("target_qps") is None:
        load["target_qps"] = rows.mean_qps
