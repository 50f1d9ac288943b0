"""Provide fixtures that tests of several packages share."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from support.ports import port_overrides
from support.required import cannot, cannot_run_slurm
from support.slurm_rack import NoSlurm, SlurmRack, slurm_rack

from tune.config import compose_overrides
from tune.orchestrator.supervision.signals import STOP_SIGNALS
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]

gc.set_threshold(100_000)  # as tune does: looking for garbage among what stays takes a sixth of the time
sys.dont_write_bytecode = False  # hundreds of processes that tests start read what the first one compiled
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
hypothesis_settings.register_profile("explore", deadline=None)  # no test asserts wall-clock time
hypothesis_settings.register_profile("same examples", deadline=None, derandomize=True, database=None)
hypothesis_settings.load_profile("same examples")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate-golden", action="store_true", help="write golden files anew; read the diff"
    )


def pytest_collection_finish() -> None:
    """Leave what collection made out of every later search for garbage."""
    gc.freeze()


@pytest.fixture
def regenerate_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--regenerate-golden"))


@pytest.fixture(autouse=True)
def signals_reach_children() -> Iterator[None]:
    """Handle signals that a background runner (`nohup`) or another test ignores; children get them."""
    wanted = dict.fromkeys(STOP_SIGNALS, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests simulate out of the user's cache; all tests of a run and their processes share it."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        yield


@pytest.fixture
def root() -> Path:
    """Return the root of the checkout."""
    return Path(__file__).parents[1]


@pytest.fixture
def dynamo(root: Path) -> Iterator[tuple[str, ...]]:
    """Return overrides that lead to the installed Dynamo and give its servers free ports.

    A machine runs one deployment at a time: other tests wait here.
    """
    venv = root / ".venv-dynamo"
    if not (venv / "bin" / "etcd").exists():
        cannot(f"no Dynamo in {venv}: make dynamo installs it")
    with (Path(tempfile.gettempdir()) / "tune-tests-dynamo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield (f"cluster.dynamo_venv={venv}", f"cluster.model_path={venv / 'model'}", *port_overrides())


@pytest.fixture
def kernels(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this process and those that it starts import the installed AIConfigurator; return its folder."""
    folder = root / ".kernels"
    if not (folder / ".installed").exists():
        cannot(f"no AIConfigurator in {folder}: make kernels installs it")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    return folder


@pytest.fixture(scope="session")
def slurm_nodes() -> Iterator[SlurmRack]:
    """Start eighteen nodes of real Slurm on this machine for all tests of this process."""
    yield from _rack(accounting=False)


@pytest.fixture
def accounted_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmRack]:
    """Start eighteen nodes with accounting for one test; its environment leads to them."""
    for rack in _rack(accounting=True):
        for name, value in rack.environment.items():
            monkeypatch.setenv(name, value)
        yield rack


def _rack(*, accounting: bool) -> Iterator[SlurmRack]:
    with ExitStack() as stack:
        try:
            rack = stack.enter_context(slurm_rack(accounting=accounting))
        except NoSlurm as reason:
            cannot_run_slurm(reason)
        yield rack


@pytest.fixture
def slurm(slurm_nodes: SlurmRack, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmRack]:
    """Lead this process' environment to idle nodes.

    Afterwards every job has to end by itself, no process may be left on a node, and all nodes are idle again.
    """
    for name, value in slurm_nodes.environment.items():
        monkeypatch.setenv(name, value)
    yield slurm_nodes
    try:
        slurm_nodes.wait(slurm_nodes.all_ended, 15, "end of all jobs")
        slurm_nodes.wait(lambda: not slurm_nodes.visitors(), 15, "nodes without processes of jobs")
    finally:
        slurm_nodes.restore()


@pytest.fixture(scope="session")
def shipped() -> Settings:
    """Compose the configuration as shipped."""
    return compose_overrides(()).settings


@pytest.fixture(scope="session")
def make_spec(shipped: Settings) -> MakeSpec:
    """Build the shipped trial with changes: a keyword is a dotted path, `__` for the dot."""

    def make(**changes: Any) -> TrialSpec:
        tree = shipped.trial_spec.model_dump(mode="json")
        for path, value in changes.items():
            *parents, last = path.split("__")
            node: dict[str, Any] = tree
            for parent in parents:
                node = node[parent]
            node[last] = value
        return TrialSpec.model_validate_json(json.dumps(tree))

    return make
