"""Test that each fault of a checkpoint's folder is found alone, and none in a whole one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.checkpoints import SHARDS, write_checkpoint

from tune.checkpoint.checkpoint_files import check_checkpoint
from tune.manifest.expected_checkpoint import ExpectedCheckpoint
from tune.spec.findings import Finding
from tune.spec.settings import Settings

Spoil = Callable[[Path], object]


@pytest.fixture
def whole(tmp_path: Path, shipped: Settings) -> ExpectedCheckpoint:
    """Return what the reference expects of its checkpoint, which is there."""
    folder = write_checkpoint(tmp_path / "checkpoint", shipped.model)
    return ExpectedCheckpoint(folder=str(folder), model=shipped.model, kv_dtype="fp8")


def edit(folder: Path, name: str, **changes: Any) -> None:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | changes))


def test_whole_checkpoint_has_no_finding(whole: ExpectedCheckpoint) -> None:
    assert check_checkpoint(whole) == ()
    (Path(whole.folder) / "model.safetensors.index.json").unlink()
    assert check_checkpoint(whole) == (), "a model in one file has no index"


SPOILT: dict[str, tuple[Spoil, str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer (tokenizer.json"),
    "a shard that never came": (lambda folder: (folder / SHARDS[1]).unlink(), f"{SHARDS[1]}: missing"),
    "an empty shard": (lambda folder: (folder / SHARDS[2]).write_bytes(b""), f"{SHARDS[2]}: empty"),
    "a page in place of a shard": (
        lambda folder: (folder / SHARDS[0]).write_text("<html>please log in, and accept the licence</html>"),
        f"{SHARDS[0]}: no header of safetensors",
    ),
    "a pointer of git LFS": (
        lambda folder: (folder / SHARDS[0]).write_text("version https://git-lfs.github.com/spec/v1\n"),
        f"{SHARDS[0]}: no header of safetensors",
    ),
    "an index of more weights": (
        lambda folder: edit(folder, "model.safetensors.index.json", metadata={"total_size": 193}),
        "192 bytes of tensors, 193 expected by model.safetensors.index.json",
    ),
    "an index that is none": (
        lambda folder: (folder / "model.safetensors.index.json").write_text("[]"),
        "model.safetensors.index.json is no index",
    ),
    "another folder": (lambda folder: folder.rename(folder.with_name("elsewhere")), "no such folder"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_fault_is_named_with_the_command_that_downloads(case: str, whole: ExpectedCheckpoint) -> None:
    spoil, named = SPOILT[case]
    spoil(Path(whole.folder))
    (finding,) = check_checkpoint(whole)
    assert (finding.severity, finding.path) == ("error", "cluster.model_path")
    assert named in finding.found
    assert whole.folder in finding.found
    download = f"hf download nvidia/Llama-3.1-405B-Instruct-FP4 --local-dir {whole.folder}"
    assert finding.expected.endswith(f"Download: {download}")


@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=st.integers(0, 10**6), shard=st.sampled_from(SHARDS))
def test_download_that_broke_off_anywhere_is_found(left: int, shard: str, whole: ExpectedCheckpoint) -> None:
    file = Path(whole.folder) / shard
    content = file.read_bytes()
    file.write_bytes(content[: left % len(content)])
    (finding,) = check_checkpoint(whole)
    file.write_bytes(content)
    assert shard in finding.found


@pytest.mark.parametrize("name", ["layers", "kv_heads", "ffn_size", "vocabulary_size", "context_tokens"])
def test_other_size_than_that_of_the_settings_is_an_error(name: str, whole: ExpectedCheckpoint) -> None:
    real = getattr(whole.model, name)
    other = whole.model_copy(update={"model": whole.model.model_copy(update={name: real + 1})})
    (finding,) = check_checkpoint(other)
    assert (finding.severity, finding.path, finding.found) == ("error", f"model.{name}", str(real + 1))
    assert finding.expected.startswith(f"{real}, as {whole.folder} has")


def test_other_quantisation_is_an_error(whole: ExpectedCheckpoint) -> None:
    edit(Path(whole.folder), "hf_quant_config.json", quantization={"quant_algo": "FP8"})
    weights, kv_cache = check_checkpoint(whole)
    assert (weights.severity, weights.path, weights.found) == ("error", "model.weight_dtype", "nvfp4")
    assert kv_cache.severity == "warning"


def test_quantisation_that_names_no_format_is_a_warning(whole: ExpectedCheckpoint) -> None:
    changed = {"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": "FP8"}
    edit(Path(whole.folder), "hf_quant_config.json", quantization=changed)
    (finding,) = check_checkpoint(whole)
    assert (finding.severity, finding.path) == ("warning", "model.weight_dtype")
    assert "MIXED_PRECISION" in finding.found


@pytest.mark.parametrize(
    ("stated", "dtype", "found"),
    [
        ("FP8", "fp8", None),
        (None, "auto", None),
        (None, "bfloat16", None),
        ("FP8", "fp8_ds_mla", None),
        (None, "fp8_ds_mla", None),
        (None, "fp8", "no scales for one"),
        ("FP8", "auto", "scales for fp8"),
        ("FP8", "bfloat16", "scales for fp8"),
    ],
)
def test_kv_cache_of_another_format_is_a_warning(
    stated: str | None, dtype: Any, found: str | None, tmp_path: Path, shipped: Settings
) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", shipped.model, stated)
    findings: tuple[Finding, ...] = check_checkpoint(
        ExpectedCheckpoint(folder=str(folder), model=shipped.model, kv_dtype=dtype)
    )
    assert [finding.severity for finding in findings] == ["warning"] * (found is not None)
    assert not found or found in findings[0].found


def test_folder_of_the_home_is_found_there(
    whole: ExpectedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(whole.folder)
    monkeypatch.setenv("HOME", str(folder.parent))
    assert check_checkpoint(whole.model_copy(update={"folder": f"~/{folder.name}"})) == ()
