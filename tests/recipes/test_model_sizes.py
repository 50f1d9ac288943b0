"""Test the sizes of models: of a checkpoint, of public models, and the message for a model without any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.composed import composed
from support.recipe_files import Changed, Planned, only

from tune.config.composition import shipped_options
from tune.errors import ConfigurationError
from tune.recipes.choices import choose
from tune.recipes.model_sizes import PRECISIONS, model_in_folder, public_model
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


SHIPPED = {
    "llama3_1_405b_fp4": "fp4",
    "llama3_1_405b_fp8": "fp8",
    "llama3_1_70b_fp4": "fp4",
    "llama3_1_70b_fp8": "fp8",
    "deepseek_r1_fp4": "fp4",
    "deepseek_r1_fp8": "fp8",
    "gpt_oss_120b": "fp4",
    "qwen3_235b_a22b_fp8": "fp8",
    "kimi_k2_fp8": "fp8",
}


def test_every_shipped_model_is_compared() -> None:
    assert set(SHIPPED) == {*shipped_options("model")} - {"llama3_1_70b_24layers"}


@pytest.mark.parametrize("option", SHIPPED)
def test_a_shipped_model_has_the_sizes_that_its_config_gives(option: str) -> None:
    stated = composed(f"model={option}").model
    served = ServedModel(path=stated.served_name, precision=SHIPPED[option])
    found = Model.model_validate(public_model(served, stated.name))
    # Kimi-K2-Instruct has half the context of the models that came after it.
    aside = {"name", "served_name", "repository"} | ({"context_tokens"} if option == "kimi_k2_fp8" else set())
    for name in set(Model.model_fields) - aside:
        value = getattr(stated, name)
        expected = pytest.approx(value, rel=0.002) if isinstance(value, float) else value
        assert getattr(found, name) == expected, name


def weights(model: Model) -> float:
    """Return the number of weights of all layers, experts and embeddings of a model without MTP layers."""
    spare = 0
    if model.experts and model.experts_per_token and model.expert_ffn_size:
        layers = model.layers - (model.dense_layers or 0)
        spare = (
            layers * (model.experts - model.experts_per_token) * 3 * model.hidden_size * model.expert_ffn_size
        )
    return model.linear_parameters + spare + 2 * model.vocabulary_size * model.hidden_size


@pytest.mark.parametrize(
    ("option", "published"),
    [
        # As their cards and papers state.
        ("deepseek_r1_fp8", 671e9),
        ("deepseek_r1_fp4", 671e9),
        ("gpt_oss_120b", 116.8e9),
        ("qwen3_235b_a22b_fp8", 235e9),
        ("kimi_k2_fp8", 1026.5e9),
        ("llama3_1_405b_fp8", 405.9e9),
        ("llama3_1_70b_fp8", 70.6e9),
    ],
)
def test_the_weights_of_a_shipped_model_are_the_published_number(option: str, published: float) -> None:
    stated = composed(f"model={option}").model
    assert weights(stated) == pytest.approx(published, rel=0.005)


FP4_BYTES = (58 * 257 * 2048 + 3 * 18432) * 3 * 7168 * 4.5 / 8
"""Of DeepSeek-R1: all feed-forward layers, 257 experts in each of 58, with the scales."""


@pytest.mark.parametrize(
    ("path", "precision", "active", "checkpoint_bytes"),
    [
        # Active parameters without embeddings and MTP. Bytes: the weight files of deepseek-ai/DeepSeek-V3 and
        # R1; twice the 396.8e9 numbers of nvidia/DeepSeek-R1-FP4, less the FP4 ones, which are bytes; the
        # repository's; 60.8 GiB of the model card.
        ("dsr1-fp8", "fp8", 36e9, 688_586_727_753),
        ("nvidia/DeepSeek-R1-0528-FP4", "fp4", 36e9, 2 * 396.8e9 - FP4_BYTES),
        ("deepseek-ai/DeepSeek-V4-Pro", "fp4", 48e9, 865e9),
        ("openai/gpt-oss-120b", "fp4", 4.5e9, 60.8 * 2**30),
    ],
)
def test_models_with_experts_are_near_their_published_sizes(
    path: str, precision: str, active: float, checkpoint_bytes: float
) -> None:
    model = Model.model_validate(public_model(ServedModel(path, precision=precision), "m"))
    near = 0.05 if "V4" in path else 0.02
    assert model.linear_parameters == pytest.approx(active, rel=0.05)
    assert model.checkpoint_bytes == pytest.approx(checkpoint_bytes, rel=near)


@pytest.mark.parametrize("entry", PUBLIC, ids=lambda entry: str(entry["names"][0]))
def test_every_public_model_is_complete(entry: dict[str, Any]) -> None:
    for precision in ("fp4", "fp8", "bf16"):
        found = public_model(ServedModel(path=entry["names"][-1], precision=precision), "m")
        assert Model.model_validate(found).context_tokens == entry["config"]["max_position_embeddings"]
    assert entry["published"] in PRECISIONS


def test_the_longest_name_decides() -> None:
    longer = public_model(ServedModel("nvidia/GLM-5.2-NVFP4", precision="fp4"), "m")
    assert longer is not None
    assert longer["context_tokens"] == config_of("glm-5.2")["max_position_embeddings"]


@pytest.mark.parametrize(
    ("path", "repository", "precision", "weight_dtype"),
    [
        ("nvidia/Llama-3.3-70B-Instruct-FP4", None, None, "nvfp4"),
        ("nvidia/Llama-3.3-70B-Instruct-NVFP4-v2", None, None, "nvfp4"),
        ("/models/llama3.1-405b-instruct-hf-torch-fp4", None, None, "nvfp4"),
        ("/models/llama3.3-70b", "nvidia/Llama-3.3-70B-Instruct-FP8", None, "fp8"),
        ("nvidia/Llama-3.3-70B-Instruct-FP4", None, "fp8", "fp8"),
        ("meta-llama/Llama-3.3-70B-Instruct", None, None, "bfloat16"),
        ("deepseek-ai/DeepSeek-R1", None, None, "fp8"),
        ("openai/gpt-oss-120b", None, None, "mxfp4"),
    ],
)
def test_a_format_is_the_stated_one_then_that_of_the_name_then_the_published_one(
    path: str, repository: str | None, precision: str | None, weight_dtype: str
) -> None:
    found = public_model(ServedModel(path, repository=repository, precision=precision), "m")
    assert found is not None
    assert found["weight_dtype"] == weight_dtype


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
    found = Model.model_validate(model_in_folder(folder, "m", None))
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
        model_in_folder(folder, "m", None)


def test_a_model_without_sizes_is_named_with_its_line(changed: Changed) -> None:
    recipe = only(changed("vllm_graph.yaml", ("nvidia/Llama-3.3-70B-Instruct-FP8", "/models/mine")))
    with pytest.raises(
        ConfigurationError, match=r"line \d+: found the model /models/mine, of which tune knows"
    ):
        choose(recipe, ())


def test_a_gpu_without_a_data_sheet_is_named(changed: Changed) -> None:
    recipe = only(changed("schema1.yaml", ('"gb200"', '"mi355x"')))
    with pytest.raises(
        ConfigurationError, match=r"line \d+: found the GPU mi355x; expected one of gb200, gb300"
    ):
        choose(recipe, ())
    assert choose(recipe, ["hardware=b200_dgx"]).hardware == "b200_dgx"
