"""Sizes of models: of a checkpoint, of public models, and what is said of those without any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from recipes.conftest import Changed, Planned, only
from support.composed import composed

from tune.errors import ConfigurationError
from tune.recipes.choices import choose
from tune.recipes.model_sizes import checkpoint_model, public_model
from tune.recipes.recipe import ServedModel
from tune.spec.model import Model
from tune.spec.timed_rules import check_timed

PUBLIC = yaml.safe_load((Path(__file__).parents[2] / "tune/recipes/public_models.yaml").read_text())


def config_of(name: str) -> dict[str, Any]:
    (entry,) = (entry for entry in PUBLIC if name in entry["names"])
    config: dict[str, Any] = dict(entry["config"])
    return config


def checkpoint(folder: Path, config: dict[str, Any], weights: int = 0) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    if weights:
        (folder / "model-1.safetensors").write_bytes(bytes(weights))
    return folder


@pytest.mark.parametrize("option", ["llama3_1_405b_fp4", "llama3_1_70b_fp4"])
def test_a_public_model_has_the_sizes_of_the_shipped_option(option: str) -> None:
    shipped = composed(f"model={option}").model
    served = ServedModel(path=shipped.served_name, precision="fp4")
    found = Model.model_validate(public_model(served, shipped.name))
    for name, value in shipped.model_dump(
        exclude={"name", "served_name", "weight_dtype", "repository"}
    ).items():
        assert getattr(found, name) == pytest.approx(value, rel=0.002), name
    assert found.weight_dtype == shipped.weight_dtype


@pytest.mark.parametrize(
    ("path", "precision", "active", "checkpoint_bytes"),
    [
        # As published: active parameters, without embeddings and MTP, and bytes of the checkpoint.
        ("dsr1-fp8", "fp8", 36e9, 688.6e9),
        ("nvidia/DeepSeek-R1-0528-FP4", "fp4", 36e9, 394e9),
        ("deepseek-ai/DeepSeek-V4-Pro", "fp4", 48e9, 865e9),
        ("openai/gpt-oss-120b", "fp4", 4.5e9, 65.2e9),
    ],
)
def test_models_with_experts_are_near_their_published_sizes(
    path: str, precision: str, active: float, checkpoint_bytes: float
) -> None:
    model = Model.model_validate(public_model(ServedModel(path, precision=precision), "m"))
    assert model.linear_parameters == pytest.approx(active, rel=0.05)
    assert model.checkpoint_bytes == pytest.approx(checkpoint_bytes, rel=0.05)


@pytest.mark.parametrize("entry", PUBLIC, ids=lambda entry: str(entry["names"][0]))
def test_every_public_model_is_complete(entry: dict[str, Any]) -> None:
    for precision in ("fp4", "fp8", "bf16"):
        found = public_model(ServedModel(path=entry["names"][-1], precision=precision), "m")
        assert Model.model_validate(found).context_tokens == entry["config"]["max_position_embeddings"]


def test_the_longest_name_decides() -> None:
    longer = public_model(ServedModel("nvidia/GLM-5.2-NVFP4", precision="fp4"), "m")
    assert longer is not None
    assert longer["context_tokens"] == config_of("glm-5.2")["max_position_embeddings"]


@pytest.mark.parametrize(
    ("stated", "quantization", "weight_dtype"),
    [
        ({"quantization_config": {"quant_method": "fp8"}}, None, "fp8"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, None, "nvfp4"),
        ({}, {"quantization": {"quant_algo": "NVFP4"}}, "nvfp4"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, None, "mxfp4"),
        ({"torch_dtype": "float16"}, None, "float16"),
        ({}, None, "bfloat16"),
    ],
)
def test_a_checkpoint_states_its_weights(
    stated: dict[str, Any], quantization: dict[str, Any] | None, weight_dtype: str, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "model", config_of("llama-3.1-70b") | stated, weights=1000)
    if quantization:
        (folder / "hf_quant_config.json").write_text(json.dumps(quantization))
    found = Model.model_validate(checkpoint_model(folder, "m", None))
    assert (found.weight_dtype, found.checkpoint_bytes, found.served_name) == (weight_dtype, 1000, "model")


@pytest.mark.slow  # composes a configuration
def test_a_checkpoint_on_this_machine_wins_over_public_sizes(
    changed: Changed, tmp_path: Path, imported: Planned
) -> None:
    folder = checkpoint(tmp_path / "mine", config_of("llama-3.1-70b") | {"num_hidden_layers": 40})
    file = changed("schema1.yaml", ("hf:meta-llama/Llama-3.3-70B-Instruct", str(folder)))
    settings, _ = imported(only(file))
    assert settings.model.layers == 40


@pytest.mark.slow  # composes a configuration
def test_a_model_with_experts_runs_on_real_engines_alone(changed: Changed, imported: Planned) -> None:
    file = changed("schema1.yaml", ("meta-llama/Llama-3.3-70B-Instruct", "openai/gpt-oss-120b"))
    settings, _ = imported(only(file))
    assert settings.model.experts == 128
    assert {finding.path for finding in check_timed(settings.trial_spec)} >= {"model.experts"}


def test_a_model_without_sizes_says_what_helps(changed: Changed, tmp_path: Path) -> None:
    recipe = only(changed("schema1.yaml", ("meta-llama/Llama-3.3-70B-Instruct", "someone/Unheard-Of")))
    with pytest.raises(ConfigurationError, match=r"someone/Unheard-Of.*config\.json, or model=NAME"):
        choose(recipe, ())
    folder = checkpoint(tmp_path / "mine", config_of("llama-3.1-70b"))
    assert choose(recipe, ["model=llama3_1_70b_fp4"]).model == "llama3_1_70b_fp4"
    assert choose(recipe, [f"cluster.model_path={folder}"]).context_tokens == 131072


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "mine", {"hidden_size": 4})
    with pytest.raises(ConfigurationError, match=r"config\.json: found no sizes of a model"):
        checkpoint_model(folder, "m", None)


def test_a_gpu_without_a_data_sheet_is_named(changed: Changed) -> None:
    recipe = only(changed("schema1.yaml", ('"gb200"', '"mi355x"')))
    with pytest.raises(ConfigurationError, match="found the GPU mi355x; expected one of gb200, gb300"):
        choose(recipe, ())
    assert choose(recipe, ["hardware=b200_dgx"]).hardware == "b200_dgx"
