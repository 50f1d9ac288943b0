"""Test `model.config`: sizes from a checkpoint's files, what overrides them, and files that lack them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tune.config import compose_overrides
from tune.config.composition import trial_overrides
from tune.errors import ConfigurationError
from tune.spec.model import Model

DEEPSEEK = {
    "num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 8,
    "intermediate_size": 512, "vocab_size": 1000, "max_position_embeddings": 4096, "n_routed_experts": 16,
    "n_shared_experts": 1, "num_experts_per_tok": 4, "moe_intermediate_size": 64, "first_k_dense_replace": 1,
    "kv_lora_rank": 32, "q_lora_rank": 48, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "num_nextn_predict_layers": 1,
}  # fmt: skip
WINDOWED = {
    "num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 2,
    "head_dim": 32, "intermediate_size": 256, "vocab_size": 1000, "num_local_experts": 8,
    "num_experts_per_tok": 2, "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip


def written(folder: Path, config: dict[str, Any], **others: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    for stem, content in others.items():
        (folder / f"{stem.replace('__', '.')}.json").write_text(json.dumps(content))
    return folder


def model_of(*overrides: str, config_dirs: tuple[str, ...] = ()) -> Model:
    return compose_overrides(overrides, config_dirs).settings.model


@pytest.mark.slow
def test_a_checkpoint_says_all_of_its_model(tmp_path: Path) -> None:
    quantization = {
        "quant_algo": "NVFP4",
        "kv_cache_quant_algo": "FP8",
        "exclude_modules": ["lm_head", "model.layers.0.self_attn*"],
    }
    folder = written(
        tmp_path / "tiny-r1",
        DEEPSEEK,
        hf_quant_config={"quantization": quantization},
        model__safetensors__index={"metadata": {"total_size": 12345}},
    )
    found = model_of(f"model.config={folder / 'config.json'}")
    assert found == model_of(f"model.config={folder}")
    assert (found.name, found.served_name) == ("tiny-r1", "tiny-r1")
    assert (found.attention, found.kv_heads, found.head_size) == ("mla", 1, 20)
    assert (found.experts, found.experts_per_token, found.expert_ffn_size) == (16, 4, 64)
    assert (found.shared_experts, found.dense_layers, found.mtp_layers) == (1, 1, 1)
    assert (found.weight_dtype, found.attention_dtype, found.kv_dtype) == ("nvfp4", "bfloat16", "fp8")
    assert found.checkpoint_bytes == 12345
    assert found.repository is None, "nothing of the default model is left"


def test_windows_and_formats_are_read_from_config_json_alone(tmp_path: Path) -> None:
    stated = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    found = model_of(f"model.config={written(tmp_path / 'oss', WINDOWED | {'quantization_config': stated})}")
    assert (found.sliding_window_tokens, found.sliding_layers, found.attention) == (128, 2, None)
    assert (found.weight_dtype, found.attention_dtype) == ("mxfp4", "bfloat16")
    expert_bits = 4 * 8 * 3 * 256 * 256 * 4.25
    attention_bits = 4 * (2 * 256 * 8 * 32 + 2 * 256 * 2 * 32) * 16
    assert found.checkpoint_bytes == (expert_bits + attention_bits) / 8 + 2 * 1000 * 256 * 2
    switched_off = written(tmp_path / "off", WINDOWED | {"use_sliding_window": False})
    assert model_of(f"model.config={switched_off}").sliding_layers is None


def test_norms_left_out_do_not_make_attention_plain(tmp_path: Path) -> None:
    stated = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.self_attn.q_norm", "lm_head"]}
    found = model_of(f"model.config={written(tmp_path / 'm', WINDOWED | {'quantization_config': stated})}")
    assert (found.weight_dtype, found.attention_dtype) == ("fp8", None)


def test_settings_of_the_command_line_win(tmp_path: Path) -> None:
    folder = written(tmp_path / "mine", DEEPSEEK)
    found = model_of(f"model.config={folder}", "model.served_name=mine/served", "+model.experts_per_token=7")
    assert (found.name, found.served_name, found.layers) == ("mine", "mine/served", 4)
    assert (found.experts, found.experts_per_token) == (16, 7)


def test_the_recorded_overrides_of_a_trial_need_no_file(tmp_path: Path) -> None:
    settings = compose_overrides((f"model.config={written(tmp_path / 'mine', DEEPSEEK)}",)).settings
    recorded = trial_overrides(settings.trial_spec, settings)
    assert not any("config" in word for word in recorded)
    assert compose_overrides(recorded).settings.trial_spec == settings.trial_spec


def test_an_option_may_name_its_checkpoint(tmp_path: Path) -> None:
    folder = written(tmp_path / "weights", DEEPSEEK)
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/mine.yaml").write_text(f"name: mine\nconfig: {folder}\n")
    found = model_of("model=mine", config_dirs=(str(tmp_path / "conf"),))
    assert (found.name, found.served_name, found.experts) == ("mine", "weights", 16)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 4}, r"config\.json: found no sizes of a model"),
        (DEEPSEEK | {"quantization_config": {"quant_method": "awq"}}, "found weights quantised by awq in"),
    ],
)
def test_a_file_that_says_too_little_is_named(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "mine", config)
    with pytest.raises(ConfigurationError, match=message):
        model_of(f"model.config={folder}")


def test_a_path_of_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere.*found no sizes of a model"):
        model_of(f"model.config={tmp_path / 'nowhere'}")
    with pytest.raises(ConfigurationError, match=r"model\.config: found 3, expected the path"):
        model_of("model.config=3")
