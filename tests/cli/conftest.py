"""The command line with real Dynamo and its mock engines, where make dynamo put them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from local_trials import Start, alive
from stand_ins import MARK, free_ports


@pytest.fixture
def dynamo(root: Path) -> Iterator[tuple[str, ...]]:
    """Overrides that lead to the installed Dynamo and give its servers free ports.

    A machine runs one deployment at a time: tests of other processes wait here.
    """
    venv = root / ".venv-dynamo"
    if not (venv / "bin" / "etcd").exists():
        reason = f"no Dynamo in {venv}: make dynamo installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with (Path(tempfile.gettempdir()) / "tune-tests-dynamo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _reached(venv)


def _reached(venv: Path) -> tuple[str, ...]:
    frontend, client, peer, nats, system = free_ports(5)
    return (
        *(f"cluster.dynamo_venv={venv}", f"cluster.model_path={venv / 'model'}"),
        *(f"stack.frontend_port={frontend}", f"stack.etcd_client_port={client}"),
        *(
            f"stack.etcd_peer_port={peer}",
            f"stack.nats_port={nats}",
            f"stack.system_port={system % 20000 + 10000}",
        ),
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`python -m tune` in a folder of its own; whatever it started is dead afterwards."""
    with ExitStack() as stack:

        def begin(*words: str) -> subprocess.Popen[str]:
            return stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tune", *words],
                    cwd=tmp_path,
                    env=os.environ | {MARK: str(tmp_path)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )

        yield begin
        left = alive(tmp_path)
        for process in left:
            os.kill(process, signal.SIGKILL)
        assert not left
