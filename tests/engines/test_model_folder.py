from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tune.client.prompts import random_id_prompts
from tune.engines.model_folder import VOCABULARY, model_files, token_text


def test_every_token_is_a_word_of_its_own() -> None:
    vocabulary = json.loads(model_files(None)["tokenizer.json"])["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(VOCABULARY))
    assert all(len(text) == 5 and text[1:].isascii() and text[1:].isalpha() for text in vocabulary)
    assert token_text(0) == "aaaa"
    assert token_text(27) == "aabb"


def test_prompts_of_the_client_are_in_the_vocabulary() -> None:
    assert max(json.loads(random_id_prompts(3, 5000)(0, 5000))) < VOCABULARY


def test_command_writes_the_folder_or_says_why_not(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tune.engines.dynamo_mocker"]
    subprocess.run([*command, tmp_path / "model"], check=True)
    written = {path.name: path.read_text() for path in (tmp_path / "model").iterdir()}
    assert written == dict(model_files(None))
    (tmp_path / "file").touch()
    failed = subprocess.run(
        [*command, tmp_path / "file" / "model"], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 2
    assert "file" in failed.stderr
