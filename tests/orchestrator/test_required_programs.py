"""Test that a program that a plan starts and this machine lacks is named before any process starts."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.fake_deployment import Trial

from tune.errors import ConfigurationError
from tune.manifest.process import PLAN_DIR, RANK_SCRIPT, Process
from tune.manifest.process_manifest import ProcessManifest, read_manifest
from tune.orchestrator.preflight import require_programs


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> ProcessManifest:
    """Return a plan whose processes all run this interpreter by its path."""
    return read_manifest(Trial(tmp_path_factory.mktemp("trial")).folder.plan)


def with_command(manifest: ProcessManifest, **commands: tuple[str, ...]) -> ProcessManifest:
    """Return `manifest` with other command lines for the processes named."""

    def changed(process: Process) -> Process:
        return replace(process, argv=commands.get(process.name, process.argv))

    return manifest.model_copy(update={"processes": tuple(map(changed, manifest.processes))})


def test_every_missing_program_is_named_once(manifest: ProcessManifest) -> None:
    ranks = ("bash", f"{PLAN_DIR}/{RANK_SCRIPT}", "prefill_w1", "0", "no-numactl", "-m", "0,1", "true")
    broken = with_command(
        manifest, etcd=("no-etcd", "--x"), prefill_w0=("no-etcd",), prefill_w1=ranks, client=("/no/python3",)
    )
    with pytest.raises(ConfigurationError, match="nothing was started") as refused:
        require_programs(broken)
    assert "Found no no-etcd, no-numactl, /no/python3. Expected" in str(refused.value)


def test_programs_are_those_beside_the_interpreter_and_on_the_path(
    manifest: ProcessManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own-etcd"
    own.write_text("#!/bin/sh\n")
    plan = with_command(manifest, etcd=(own.name,), client=(Path(sys.executable).name,))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="Found no own-etcd"):
        require_programs(plan)  # a file that is no program
    own.chmod(0o755)
    require_programs(plan)
