"""Test that no file, output or error of action=import holds a secret of a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import run_import
from support.recipe_files import Changed, only

from tune.errors import ConfigurationError
from tune.recipes.options import left_out_text

SECRET = "hf_5ecretvalue"
SRT = "  prefill_environment:\n"
SCHEMA_2 = '{UCX_TLS: "cuda_ipc,rc", NCCL_DEBUG: INFO'
GRAPH = "- {name: TLLM_LOG_LEVEL, value: INFO}"
COMMAND = "python3 -m dynamo.trtllm"

TAKEN: dict[str, tuple[str, str, str]] = {
    "schema 1": ("schema1.yaml", '"not-a-real-one"', SECRET),
    "schema 1, an argument": ("schema1.yaml", "    no-kv-events: true", f"    api-key: {SECRET}"),
    "schema 1, an option that tune refuses": (
        "schema1.yaml",
        "  exclusive:",
        f"  export: ALL,HF_TOKEN={SECRET}\n  exclusive:",
    ),
    "schema 1, an option of srun": (
        "schema1.yaml",
        "sbatch_directives:\n",
        f"srun_options:\n  container-env: HF_TOKEN={SECRET}\nsbatch_directives:\n",
    ),
    "schema 1, a secret option of srun": (
        "schema1.yaml",
        "sbatch_directives:\n",
        f"srun_options:\n  site-api-key: {SECRET}\nsbatch_directives:\n",
    ),
    "schema 1, a secret option of sbatch": (
        "schema1.yaml",
        "  exclusive:",
        f"  site-api-key: {SECRET}\n  exclusive:",
    ),
    "schema 2": ("schema2.yaml", SCHEMA_2, f"{SCHEMA_2}, HF_TOKEN: {SECRET}"),
    "schema 2, an unknown list": ("schema2.yaml", "schema: 2", f"schema: 2\nmore: [[--api-key, {SECRET}]]"),
    "a deployment of Dynamo": ("dynamo_graph.yaml", GRAPH, f"- {{name: HF_TOKEN, value: {SECRET}}}"),
    "a deployment, on the command line": ("dynamo_graph.yaml", f"{COMMAND} ", f"{COMMAND} --token {SECRET} "),
    "a deployment, before its command": ("dynamo_graph.yaml", COMMAND, f"env HF_TOKEN={SECRET} {COMMAND}"),
    "a deployment, in the shell": ("dynamo_graph.yaml", COMMAND, f"export HF_TOKEN={SECRET}; {COMMAND}"),
    "a deployment, in a side container": (
        "dynamo_graph.yaml",
        "        volumes:\n",
        f"        initContainers: [{{env: [{{name: HF_TOKEN, value: {SECRET}}}]}}]\n        volumes:\n",
    ),
    "a deployment, in a map": ("dynamo_graph.yaml", "  unused.yaml:", f"  token: {SECRET}\n  unused.yaml:"),
    "workers of vLLM": (
        "vllm_graph.yaml",
        "env: [{name: SERVED,",
        f"env: [{{name: HF_TOKEN, value: {SECRET}}}, {{name: SERVED,",
    ),
    "TensorRT-LLM's benchmark": ("trtllm_slurm.yaml", "TRTLLM_ENABLE_PDL=1", f"HF_TOKEN={SECRET}"),
}  # fmt: skip
REFUSED: dict[str, tuple[str, str, str]] = {
    "a variable that is no text": ("schema1.yaml", '"not-a-real-one"', f"[{SECRET}]"),
    "a value that is no text": ("dynamo_graph.yaml", GRAPH, f"- {{name: HF_TOKEN, value: [{SECRET}]}}"),
    "a word without a value": ("trtllm_slurm.yaml", "TRTLLM_ENABLE_PDL=1", f"ONE HF_TOKEN={SECRET}"),
    "a key of the engine": ("schema1.yaml", "      print_iter_log: true", f"      api_key: {SECRET}"),
    "an option of vLLM": (
        "vllm_graph.yaml",
        "--is-prefill-worker",
        f"--is-prefill-worker --api-key {SECRET}",
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_not_taken_over_shows_no_secret(case: str, changed: Changed) -> None:
    file, before, after = TAKEN[case]
    recipe = only(changed(file, (before, after)))
    assert not [text for text in map(left_out_text, recipe.left_out) if SECRET in text]
    assert SECRET not in repr(recipe)


def test_a_component_of_kubernetes_shows_no_secret(changed: Changed) -> None:
    given = '{name: SHARED, value: "1"}', f"{{name: HF_TOKEN, value: {SECRET}}}"
    recipe = only(changed("dynamo_components.yaml", given))
    assert {part.path: part.value for part in recipe.left_out}["spec.env[0].value"] == "set"
    assert SECRET not in repr(recipe)


@pytest.mark.slow  # composes configurations
@pytest.mark.parametrize("case", TAKEN)
def test_import_writes_and_prints_no_secret(
    case: str, changed: Changed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, before, after = TAKEN[case]
    run_import(changed(file, (before, after)), tmp_path / "to")
    written = [path for path in (tmp_path / "to").rglob("*") if path.is_file()]
    assert len(written) >= 3
    assert not [path for path in written if SECRET in path.read_text()]
    printed = capsys.readouterr()
    assert "Not taken over:" in printed.out
    assert SECRET not in printed.out + printed.err


@pytest.mark.slow  # composes configurations
@pytest.mark.parametrize("case", REFUSED)
def test_an_error_shows_no_secret(case: str, changed: Changed, tmp_path: Path) -> None:
    file, before, after = REFUSED[case]
    with pytest.raises(ConfigurationError) as error:
        run_import(changed(file, (before, after)), tmp_path / "to")
    assert SECRET not in str(error.value)
    assert not (tmp_path / "to").exists()
