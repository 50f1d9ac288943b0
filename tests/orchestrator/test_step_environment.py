from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from support.waiting import wait_for

from tune.errors import ConfigurationError
from tune.manifest.process import Process
from tune.orchestrator.launcher import ChildProcessLauncher, ResolvedProcess
from tune.orchestrator.preflight import require_variables

PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"


def environment_of(process: Process, tmp_path: Path) -> dict[str, str]:
    """Return the variables that a process sees which this machine's launcher started."""
    resolved = ResolvedProcess(
        process, ("here",), process.argv, process.env, tmp_path / "log", (), None, srun_env={}
    )
    handle = ChildProcessLauncher(tmp_path).start(resolved)
    wait_for(lambda: handle.poll() is not None)
    seen: dict[str, str] = json.loads((tmp_path / "log").read_text())
    return seen


def test_a_process_sees_named_variables_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "UCX_TLS", "NCCL_DEBUG"):
        monkeypatch.setenv(name, "of the shell")
    argv = (sys.executable, "-I", "-c", PRINT_ENVIRONMENT)
    process = Process("decode_w0", "decode", 0, (), {"UCX_TLS": "rc"}, argv, "log", inherits=("HF_TOKEN",))
    seen = environment_of(process, tmp_path)
    assert (seen["HF_TOKEN"], seen["UCX_TLS"]) == ("of the shell", "rc")
    assert "NCCL_DEBUG" not in seen
    assert seen["TMPDIR"] == str(tmp_path)
    assert os.environ["PATH"] in seen["PATH"]


def test_a_variable_that_is_not_set_where_tune_starts_is_named() -> None:
    environments = {
        "prefill.env": {"HF_TOKEN": None, "UCX_TLS": "rc"},
        "stack.env": {"A": None},
        "cluster.srun_env": {"ENROOT_CACHE_PATH": None},
    }
    with pytest.raises(
        ConfigurationError, match=r"^prefill.env.HF_TOKEN, cluster.srun_env.ENROOT_CACHE_PATH"
    ):
        require_variables(environments, {"A": ""})
    require_variables(environments, {"A": "", "HF_TOKEN": "", "ENROOT_CACHE_PATH": "/c"})
