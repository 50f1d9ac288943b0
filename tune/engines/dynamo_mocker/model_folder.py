"""Write a model folder without weights: the tokenizer and the sizes that Dynamo reads of a model it serves.

Every token is a word of its own, a blank and four letters, so each decodes to whole UTF-8. A token that ended
within a character would reach the client together with the next one, and their times would be wrong.
Source of the files: Hugging Face tokenizers and transformers, as Dynamo 1.6.1 reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from string import ascii_lowercase

from tune.core.files import write_text

VOCABULARY = 1 << 15
"""Number of words. Token ids in the client's prompts (tune/client/prompts.py) are below it."""

_BLANK = "▁"
_BEGIN, _END = "<s>", "</s>"
_LONGEST_TOKENS = 1 << 20


def write_model_folder(folder: Path) -> None:
    """Write the three files into `folder`. Raises ConfigurationError when one cannot be written."""
    for name, text in model_files().items():
        write_text(folder / name, text)


def model_files() -> Mapping[str, str]:
    """Return the texts of tokenizer.json, tokenizer_config.json and config.json by file name."""
    contents = {
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": _BEGIN,
            "eos_token": _END,
            "model_max_length": _LONGEST_TOKENS,
            "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
        },
        "config.json": _config(),
    }
    return {
        name: json.dumps(content, ensure_ascii=False, indent=None if name == "tokenizer.json" else 1) + "\n"
        for name, content in contents.items()
    }


def token_text(token: int) -> str:
    """Return the four letters of the token id `token`, below VOCABULARY: the number in base 26."""
    letters = ""
    for _ in range(4):
        token, digit = divmod(token, len(ascii_lowercase))
        letters = ascii_lowercase[digit] + letters
    return letters


def _tokenizer() -> dict[str, object]:
    blanks = {"type": "Metaspace", "replacement": _BLANK, "prepend_scheme": "always", "split": True}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": VOCABULARY, "content": _BEGIN} | special,
            {"id": VOCABULARY + 1, "content": _END} | special,
        ],
        "normalizer": None,
        "pre_tokenizer": blanks,
        "post_processor": None,
        "decoder": blanks,
        "model": {
            "type": "WordLevel",
            "vocab": {_BLANK + token_text(token): token for token in range(VOCABULARY)},
            "unk_token": _BLANK + token_text(0),
        },
    }


def _config() -> dict[str, object]:
    """Return sizes that no result depends on: flags give a worker its KV cache and longest sequence."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "hidden_size": 128,
        "vocab_size": VOCABULARY + 2,
        "max_position_embeddings": _LONGEST_TOKENS,
        "bos_token_id": VOCABULARY,
        "eos_token_id": VOCABULARY + 1,
        "torch_dtype": "bfloat16",
    }
