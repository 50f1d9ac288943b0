"""Test what action=image writes and prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.composed import changed, composed

from tune.cli.image_command import image_action
from tune.config import ComposedConfig
from tune.errors import ConfigurationError


def composition(*changes: str) -> ComposedConfig:
    return ComposedConfig(changed(composed("cluster=slurm"), *changes), "single-slurm", changes)


def test_steps_are_written_for_the_file_that_jobs_run_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image_action(composition(f"runs_dir={tmp_path}", "cluster.container_image=/images/a.sqsh"))
    printed, script = capsys.readouterr().out, (tmp_path / "build_image.sh").read_text()
    assert f"bash {tmp_path / 'build_image.sh'}" in printed
    assert "cluster.container_image=/images/a.sqsh" in printed
    assert script.startswith("#!/bin/bash\nDYNAMO_COMMIT=f9b1757f32d0793abbb625ed4467eab133924671\n")
    assert "\nSQUASH_FILE=/images/a.sqsh\n" in script


def test_facts_that_say_nothing_to_build_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cluster\.image: found null, expected the commits"):
        image_action(composition(f"runs_dir={tmp_path}", "cluster.image=null"))
    assert list(tmp_path.iterdir()) == []


def test_engine_without_steps_is_refused(tmp_path: Path) -> None:
    settings = composed("cluster=slurm", "stack=dynamo_vllm", "prefill=vllm", "decode=vllm")
    other = ComposedConfig(changed(settings, f"runs_dir={tmp_path}"), "single-slurm", ())
    with pytest.raises(ConfigurationError, match=r"found stack\.engine=dynamo_vllm, whose image"):
        image_action(other)
    assert list(tmp_path.iterdir()) == []
