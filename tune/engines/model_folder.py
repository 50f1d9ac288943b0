"""Write a model folder without weights: a tokenizer, and the sizes of a model.

Dynamo reads it of a model that it serves; an engine that makes random weights needs no more.

Every token is a word of its own, a blank and four letters, so each decodes to whole UTF-8. A token that ended
within a character would reach the client together with the next one, and their times would be wrong.
Source of the files: Hugging Face tokenizers and transformers, as Dynamo 1.6.1 reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from string import ascii_lowercase

from tune.core.files import make_folder, write_text
from tune.spec.model import Model

VOCABULARY = 1 << 15
"""Number of words where no model says it. Token ids in the client's prompts (tune/client/prompts.py) are
below it."""

_SPECIAL_TOKENS = 2

_BLANK = "▁"
_BEGIN, _END = "<s>", "</s>"
_LONGEST_TOKENS = 1 << 20


def write_model_folder(folder: Path) -> None:
    """Write the files of a model of no size. Raises ConfigurationError when one cannot be written."""
    make_folder(folder, parents=True)
    for name, text in model_files(None).items():
        write_text(folder / name, text)


def model_files(model: Model | None) -> Mapping[str, str]:
    """Return the texts of tokenizer.json, tokenizer_config.json and config.json by file name.

    Without `model` the sizes are the least, for servers that take all they need of a model as flags.
    """
    word_count = VOCABULARY if model is None else model.vocabulary_size - _SPECIAL_TOKENS
    contents = {
        "tokenizer.json": _tokenizer(word_count),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": _BEGIN,
            "eos_token": _END,
            "model_max_length": _LONGEST_TOKENS,
            "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
        },
        "config.json": _common_config(word_count) | (_least_sizes() if model is None else _sizes_of(model)),
    }
    return {
        name: json.dumps(content, ensure_ascii=False, indent=None if name == "tokenizer.json" else 1) + "\n"
        for name, content in contents.items()
    }


def token_text(token: int) -> str:
    """Return the four letters of the token id `token`, below 26^4: the number in base 26."""
    letters = ""
    for _ in range(4):
        token, digit = divmod(token, len(ascii_lowercase))
        letters = ascii_lowercase[digit] + letters
    return letters


def _tokenizer(word_count: int) -> dict[str, object]:
    blanks = {"type": "Metaspace", "replacement": _BLANK, "prepend_scheme": "always", "split": True}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": word_count, "content": _BEGIN} | special,
            {"id": word_count + 1, "content": _END} | special,
        ],
        "normalizer": None,
        "pre_tokenizer": blanks,
        "post_processor": None,
        "decoder": blanks,
        "model": {
            "type": "WordLevel",
            "vocab": {_BLANK + token_text(token): token for token in range(word_count)},
            "unk_token": _BLANK + token_text(0),
        },
    }


def _common_config(word_count: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": word_count + _SPECIAL_TOKENS,
        "bos_token_id": word_count,
        "eos_token_id": word_count + 1,
        "torch_dtype": "bfloat16",
    }


def _least_sizes() -> dict[str, object]:
    return {
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "hidden_size": 128,
        "max_position_embeddings": _LONGEST_TOKENS,
    }


def _sizes_of(model: Model) -> dict[str, object]:
    """Return the sizes of a dense model in the style of Llama."""
    return {
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.attention_heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_size,
        "max_position_embeddings": model.context_tokens or _LONGEST_TOKENS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": False,
    }
