"""Check that a checkpoint is whole and is the model that the settings describe.

Only names, sizes and headers are read, so a checkpoint of hundreds of GB takes seconds.
Source of the formats: Hugging Face, safetensors (8 bytes with the length of a header, the header, the data)
and model.safetensors.index.json (`weight_map`, `metadata.total_size`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tune.checkpoint.config_json import (
    CONFIG_FILE,
    INDEX_FILE,
    QUANTIZATION_FILE,
    checkpoint_sizes,
    kv_cache_format,
    unread_quantization,
)
from tune.errors import ConfigurationError
from tune.manifest.expected_checkpoint import ExpectedCheckpoint
from tune.spec.findings import Finding

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tiktoken.model")

_MAX_HEADER_BYTES = 100_000_000
"""Longest header of a shard. Source: safetensors, README, format."""

_LENGTH_BYTES = 8
_SHOWN = 5
"""Number of broken files that a message names."""

_COMPARED_WHERE_STATED = (
    "context_tokens", "experts_per_token", "expert_ffn_size", "shared_experts", "dense_layers", "attention",
    "sliding_window_tokens", "sliding_layers", "attention_dtype", "mtp_layers",
)  # fmt: skip

_SOURCE = "the folder of the checkpoint"


def check_checkpoint(expected: ExpectedCheckpoint) -> tuple[Finding, ...]:
    """Return what is missing or broken in the folder, and where it is another model than expected."""
    folder = Path(expected.folder).expanduser()
    try:
        if not folder.is_dir():
            return (_incomplete(expected, folder, ["no such folder"]),)
        faults = [*_missing_texts(folder), *_weight_faults(folder)]
        whole = (_incomplete(expected, folder, faults),) if faults else ()
        return (*whole, *_other_model(expected, folder), *_other_kv_format(expected, folder))
    except OSError as error:
        return (_incomplete(expected, folder, [f"{error.filename} cannot be read ({error.strerror})"]),)
    except (ValueError, AttributeError, TypeError) as error:  # of a file that is no JSON, or of another form
        return (_incomplete(expected, folder, [f"{QUANTIZATION_FILE} is none ({error})"]),)


def _incomplete(expected: ExpectedCheckpoint, folder: Path, faults: list[str]) -> Finding:
    """Return the error that names `faults`, and the command that downloads the checkpoint."""
    more = f"; {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    wanted = "config.json, a tokenizer, and every file of weights in its full size"
    if expected.model.repository:
        command = shlex.join(["hf", "download", expected.model.repository, "--local-dir", str(folder)])
        wanted += f". Download: {command}"
    return Finding(
        "error",
        "cluster.model_path",
        f"{folder}: {'; '.join(faults[:_SHOWN])}{more}",
        wanted,
        "every worker reads this folder; they would fail one after the other, minutes after their start",
        _SOURCE,
    )


def _missing_texts(folder: Path) -> Iterator[str]:
    if not (folder / CONFIG_FILE).is_file():
        yield f"no {CONFIG_FILE}"
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        yield f"no tokenizer ({', '.join(TOKENIZER_FILES)})"


def _weight_faults(folder: Path) -> Iterator[str]:
    """Yield the files of weights that are missing, empty or cut short."""
    index = folder / INDEX_FILE
    total_bytes: int | None = None
    if index.is_file():
        try:
            content = json.loads(index.read_text(encoding="utf-8"))
            names = sorted(set(content["weight_map"].values()))
            total_bytes = content.get("metadata", {}).get("total_size")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            yield f"{INDEX_FILE} is no index ({error})"
            return
    else:
        names = sorted(path.name for path in folder.glob("*.safetensors"))
        if not names:
            yield f"no {INDEX_FILE} and no *.safetensors"
    data_bytes = 0
    faults = 0
    for name in names:
        fault, shard_bytes = _read_shard(folder / name)
        if fault:
            yield f"{name}: {fault}"
        faults += fault is not None
        data_bytes += shard_bytes
    if not faults and isinstance(total_bytes, int) and data_bytes < total_bytes:
        yield f"{data_bytes} bytes of tensors, {total_bytes} expected by {INDEX_FILE}"


def _read_shard(file: Path) -> tuple[str | None, int]:
    """Return what is wrong with a file of weights, None where nothing is, and the bytes of its tensors."""
    if not file.is_file():
        return "missing", 0
    size = file.stat().st_size
    if not size:
        return "empty", 0
    with file.open("rb") as content:
        length = int.from_bytes(content.read(_LENGTH_BYTES), "little")
        text = content.read(length) if length <= min(_MAX_HEADER_BYTES, size) else b""
    try:
        tensors: list[Any] = [value for name, value in json.loads(text).items() if name != "__metadata__"]
        data_bytes = max((tensor["data_offsets"][1] for tensor in tensors), default=0)
    except (ValueError, KeyError, AttributeError, TypeError, IndexError):
        return "no header of safetensors", 0
    wanted = _LENGTH_BYTES + length + data_bytes
    return (None if size == wanted else f"{size} bytes, {wanted} expected by its header"), data_bytes


def _other_model(expected: ExpectedCheckpoint, folder: Path) -> Iterator[Finding]:
    """Yield every size or number format in which the checkpoint differs from the settings `model`."""
    if not (folder / CONFIG_FILE).is_file():
        return
    try:
        found = checkpoint_sizes(folder / CONFIG_FILE)
    except ConfigurationError as error:
        yield Finding("error", "cluster.model_path", str(error), "a checkpoint", "engines read it", _SOURCE)
        return
    names = ("layers", "hidden_size", "attention_heads", "kv_heads", "head_size", "ffn_size")
    for name in (*names, "vocabulary_size", "weight_dtype", "experts", *_COMPARED_WHERE_STATED):
        stated, real = getattr(expected.model, name), found.get(name)
        if stated == real or (name in _COMPARED_WHERE_STATED and stated is None):
            continue
        if name == "weight_dtype" and (method := unread_quantization(folder / CONFIG_FILE)):
            yield _unread(expected, method)
            continue
        file = QUANTIZATION_FILE if name == "weight_dtype" else CONFIG_FILE
        yield Finding(
            "error",
            f"model.{name}",
            f"{stated}",
            f"{real}, as {folder} has, or the folder of {expected.model.name}",
            "memory, batches and step times are counted with the sizes in `model`",
            f"{file} of the checkpoint",
        )


def _unread(expected: ExpectedCheckpoint, method: str) -> Finding:
    """Return the warning that the quantisation of the weights does not say their number format."""
    return Finding(
        "warning",
        "model.weight_dtype",
        f"{expected.model.weight_dtype}; the checkpoint is quantised by {method}",
        "a method that names NVFP4, MXFP4 or FP8, to compare the two",
        "memory and step times are counted with the format in `model`, which nothing confirms",
        f"{QUANTIZATION_FILE} or {CONFIG_FILE} of the checkpoint",
    )


def _other_kv_format(expected: ExpectedCheckpoint, folder: Path) -> Iterator[Finding]:
    """Yield that the checkpoint has no scales for the KV cache of the settings, or was made for another.

    A cache of fp8_ds_mla holds scales of its own for every token.
    """
    wanted, stated = expected.kv_dtype, kv_cache_format(folder)
    if wanted == "auto" and expected.model.kv_dtype is not None:
        wanted = expected.model.kv_dtype
    if wanted in (stated, "fp8_ds_mla") or (stated is None and wanted not in ("fp8", "nvfp4")):
        return
    if stated is None:
        has, expects = "no scales for one", "a checkpoint with such scales, or a KV cache of 16 bits"
        why = "without scales of the checkpoint the engine takes 1, which may cost accuracy"
    elif wanted == "auto":
        has, expects = f"scales for {stated}", f"a KV cache of {stated}"
        why = "the engine follows the checkpoint, while memory is counted with the model's own format"
    else:
        has, expects = f"scales for {stated}", f"a KV cache of {stated}"
        why = "the checkpoint was made, and its accuracy stated, with the other format"
    source = f"{QUANTIZATION_FILE} of the checkpoint, kv_cache_quant_algo"
    yield Finding(
        "warning", "decode", f"a KV cache of {wanted}; the checkpoint has {has}", expects, why, source
    )
