"""Run the steps that build an image with programs that only note how they are called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tune.config import compose_overrides
from tune.deploy.image_steps import image_script, squash_file_of
from tune.engines.registry import adapter_named
from tune.errors import ConfigurationError
from tune.spec.cluster import ImageBuild

BUILD = ImageBuild(name="rack/serving", dynamo_commit="f9b1757", engine_commit="cd2f9fa", platform="arm64")
STEPS = adapter_named("trtllm").image_steps or ""
IMAGE = "rack/serving:f9b1757-cd2f9fa-arm64"
NOTE = 'echo "$(basename "$0") $*" >> "$NOTES"\n'
DYNAMO = """
if [ "$1" = clone ]; then
    mkdir -p dynamo/.git dynamo/container
    [ -z "$FRAMEWORKS" ] && exit 0
    printf '#!/bin/sh\\n# %s\\necho "build.sh $*" >> "$NOTES"\\n' "$FRAMEWORKS" > dynamo/container/build.sh
    chmod +x dynamo/container/build.sh
fi
"""
"""Stands for the clone of a Dynamo whose build.sh knows $FRAMEWORKS; one without it is newer."""


def build(tmp_path: Path, frameworks: str) -> tuple[int, str, list[str]]:
    """Run the steps with stand-ins for git, docker and enroot; return exit code, errors and their calls."""
    programs, notes = tmp_path / "programs", tmp_path / "notes"
    programs.mkdir(exist_ok=True)
    texts = {"git": DYNAMO, "docker": "", "enroot": 'echo squash > "$3"\n'}
    for name, text in texts.items():
        (programs / name).write_text(f"#!/bin/sh\n{NOTE}{text}")
        (programs / name).chmod(0o755)
    script = tmp_path / "build_image.sh"
    script.write_text(image_script(STEPS, BUILD, tmp_path / "images" / "my image.sqsh"))
    done = subprocess.run(
        ["bash", script, tmp_path / "sources"],
        env={"PATH": f"{programs}:{os.environ['PATH']}", "NOTES": str(notes), "FRAMEWORKS": frameworks},
        capture_output=True,
        text=True,
        check=False,
    )
    return (
        done.returncode,
        done.stdout + done.stderr,
        notes.read_text().splitlines() if notes.exists() else [],
    )


@pytest.mark.parametrize(
    ("frameworks", "name"), [('["TENSORRTLLM"]=2', "tensorrtllm"), ('["TRTLLM"]=2', "trtllm")]
)
def test_steps_build_both_commits_and_import_what_was_built(
    frameworks: str, name: str, tmp_path: Path
) -> None:
    code, said, calls = build(tmp_path, frameworks)
    assert code == 0, said
    squash_file = tmp_path / "images" / "my image.sqsh"
    assert calls == [
        "git clone https://github.com/ai-dynamo/dynamo.git",
        "git checkout --detach f9b1757",
        f"build.sh --framework {name} --tensorrtllm-commit cd2f9fa --platform linux/arm64 --tag {IMAGE}",
        f"enroot import --output {squash_file}.part dockerd://{IMAGE}",
    ]
    assert [path.name for path in squash_file.parent.iterdir()] == [squash_file.name]
    assert str(squash_file) in said, "its digest is printed"
    code, said, again = build(tmp_path, frameworks)
    assert (code, again) == (1, calls), "a file that jobs may use is not replaced"
    assert "expected no file there" in said


def test_dynamo_that_builds_otherwise_is_said_to_be_too_new(tmp_path: Path) -> None:
    code, said, calls = build(tmp_path, "")
    assert code == 1
    assert "found no container/build.sh in Dynamo f9b1757" in said
    assert not [call for call in calls if call.startswith("enroot")]


def test_jobs_run_in_the_file_that_the_steps_write() -> None:
    facts = compose_overrides([]).settings.cluster
    given = facts.model_copy(update={"container_image": "/images/mine.sqsh"})
    assert squash_file_of(given, BUILD, Path("/runs")) == Path("/images/mine.sqsh")
    assert squash_file_of(facts, BUILD, Path("/runs")) == Path("/runs/serving_f9b1757-cd2f9fa-arm64.sqsh")
    in_a_registry = facts.model_copy(update={"container_image": "nvcr.io#nvidia/x:1"})
    with pytest.raises(ConfigurationError, match=r"found nvcr\.io#nvidia/x:1, expected the absolute path"):
        squash_file_of(in_a_registry, BUILD, Path("/runs"))


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck is installed")
def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    script = tmp_path / "build_image.sh"
    script.write_text(image_script(STEPS, BUILD, Path("/images/it's mine.sqsh")))
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
