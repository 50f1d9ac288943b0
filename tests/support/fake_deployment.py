"""Make trials whose plans consist of fake processes, and find what of them still runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.composed import changed, composed
from support.ports import free_ports
from support.waiting import wait_for
from tune.deploy.plan import client_json
from tune.engines.registry import engine_of
from tune.manifest.expected_checkpoint import ExpectedCheckpoint
from tune.manifest.process import PLAN_DIR, RAW_DIR, Port, Process, ProcessRole
from tune.manifest.process_manifest import ACCURACY_CLIENT_FILE, MANIFEST_FILE, ProcessManifest
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import TrialFolder, read_attempt
from tune.spec.cluster import Deadlines
from tune.spec.split import ALL_ROLES
from tune.spec.trial import TrialSpec

FAKE = Path(__file__).with_name("fake_dynamo.py")
MARK = "TUNE_TEST_MARK"


def server_names(
    workers: tuple[int, int], frontends: int, aggregated: int = 0
) -> tuple[tuple[str, ProcessRole], ...]:
    """Return name and role of all processes but the load client, in the order in which they start."""
    return (
        *(("etcd", "etcd"), ("frontend", "frontend")),
        *((f"frontend_{index}", "frontend") for index in range(1, frontends)),
        *((f"prefill_w{index}", "prefill") for index in range(workers[0])),
        *((f"decode_w{index}", "decode") for index in range(workers[1])),
        *((f"aggregated_w{index}", "aggregated") for index in range(aggregated)),
    )


SERVERS = tuple(name for name, _ in server_names((2, 1), 1))
QUERIES = 60
STOP_S = 1.0


def short_spec(frontend_port: int) -> TrialSpec:
    """Return a trial of 60 queries in about a second."""
    load = [
        *("load.target_qps=60.0", "load.min_duration_s=1.0", f"load.min_queries={QUERIES}"),
        *("load.concatenate_permutation=false", "load.request_timeout_s=20.0"),
        *("load.response_timeout_s=20.0", "load.dataset.inputs.mean_tokens=400.0"),
        *("load.dataset.inputs.kind=fixed", "load.dataset.inputs.sd_tokens=0.0"),
    ]
    return changed(composed("stack=dynamo_v1", *load), f"stack.frontend_port={frontend_port}").trial_spec


@dataclass
class Trial:
    """Hold a trial in `root`. `behaviour`: see fake_dynamo.py. `alter` changes the spec before its plan.

    `workers`: number of prefill and of decode workers; `aggregated`: number of workers in their place.
    `frontends`: number of frontends; those beyond the first are named frontend_1, frontend_2, ...
    `tokenizer`: file for the accuracy run of a spec with one.
    """

    root: Path
    behaviour: dict[str, Any] = field(default_factory=dict)
    quiet_s: float = 20.0
    stop_s: float = STOP_S
    real_client: bool = False
    frontends: int = 1
    workers: tuple[int, int] = (2, 1)
    aggregated: int = 0
    tokenizer: str = ""
    image: str | None = None
    checkpoint: ExpectedCheckpoint | None = None
    alter: Callable[[TrialSpec], TrialSpec] = lambda spec: spec

    def __post_init__(self) -> None:
        self.folder = TrialFolder(self.root / "t0")
        self.state = self.root / "state"
        (self.state / "began").mkdir(parents=True)
        workers = (0, 0) if self.aggregated else self.workers
        servers = server_names(workers, self.frontends, self.aggregated)
        self.names: tuple[tuple[str, ProcessRole], ...] = (*servers, ("client", "client"))
        self.ports = dict(zip((name for name, _ in servers), free_ports(len(servers)), strict=True))
        self.spec = self.alter(short_spec(self.ports["frontend"]))
        self.attempt = self.folder.new_attempt()
        self.attempt.mkdir(parents=True)
        self.mark = str(self.state)
        self._write()

    def _write(self) -> None:
        behaviour = {"model": self.spec.model.served_name} | self.behaviour
        (self.state / "behaviour.json").write_text(json.dumps(behaviour))
        urls = self.frontend_urls
        ready = ("python3", f"{PLAN_DIR}/ready.py", "--model", self.spec.model.served_name)
        ready += tuple(word for url in urls for word in ("--frontend", url))
        prefill, decode = self.workers
        ready += (
            ("--expect", f"backend={self.aggregated}")
            if self.aggregated
            else ("--expect", f"prefill={prefill}", "--expect", f"backend={decode}")
        )
        manifest = ProcessManifest(
            nodes=3,
            processes=tuple(self._process(name, role) for name, role in self.names),
            readiness_command=ready,
            deadlines=Deadlines(quiet_s=self.quiet_s, ready_s=60.0, stop_s=self.stop_s),
            endpoint_urls=tuple(f"{url}/v1" for url in urls),
            image=self.image,
            checkpoint=self.checkpoint,
            container=(),
            keeps_containers=False,
            gpus_per_node=None,
            keeps_processes=True,
            engine=engine_of(self.spec).signals,
            srun_env={},
        )
        self.folder.plan.mkdir(parents=True)
        (self.folder.plan / MANIFEST_FILE).write_text(manifest.text())
        (self.folder.plan / "client.json").write_text(client_json(self.spec))
        if self.spec.load.accuracy:
            (self.folder.plan / ACCURACY_CLIENT_FILE).write_text(client_json(self.spec, self.tokenizer))
        self.folder.write_spec(self.spec)

    def _process(self, name: str, role: ProcessRole) -> Process:
        port = self.ports.get(name, 0)
        argv: tuple[str, ...] = (sys.executable, str(FAKE), str(self.state))
        argv += ("process", name, role, str(port))
        if role == "client" and self.real_client:
            argv = ("python3", "-m", "tune.client", f"{PLAN_DIR}/client.json")
            argv += tuple(word for url in self.frontend_urls for word in ("--endpoint", f"{url}/v1"))
            argv += ("--out", f"{RAW_DIR}/probe-1")
        listens = (Port(port, f"stack.{name}_port"),) if port else ()
        metrics = port if role in ("frontend", *ALL_ROLES) else None
        log = f"logs/{name}.out"
        return Process(name, role, 0, (), {}, argv, log, listens, metrics, inherits=(MARK,))

    @property
    def frontend_urls(self) -> list[str]:
        """Return the address of each frontend."""
        frontends = [name for name, role in self.names if role == "frontend"]
        return [f"http://127.0.0.1:{self.ports[name]}" for name in frontends]

    @property
    def record(self) -> AttemptRecord:
        record = read_attempt(self.attempt)
        assert record is not None, "no attempt.json"
        return record

    def environment(self) -> dict[str, str]:
        """Return the environment of an orchestrator, with a mark that all its processes inherit."""
        scratch = self.root / "scratch"
        scratch.mkdir(exist_ok=True)
        return dict(os.environ) | {MARK: self.mark, "TMPDIR": str(scratch)}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the orchestrator of one attempt."""
        return subprocess.Popen(
            [sys.executable, "-m", "tune.orchestrator", str(self.attempt), *arguments],
            env=self.environment(),
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self) -> tuple[int, str]:
        """Run the attempt; return the exit code and the lines of progress."""
        with self.start() as orchestrator:
            return finish(orchestrator), (orchestrator.stderr.read() if orchestrator.stderr else "")

    def pid(self, name: str) -> int:
        """Return the id of the process `name` once it works."""
        path = self.state / "began" / name
        wait_for(path.exists)
        return int(path.read_text())

    def alive(self) -> dict[int, str]:
        """Return the command lines of all processes with this trial's mark, by id."""
        return processes_with(f"{MARK}={self.mark}")

    def kill_all(self) -> None:
        for process in self.alive():
            os.kill(process, signal.SIGKILL)


MakeTrial = Callable[..., Trial]
"""Takes fields of Trial without its root."""


def assert_nothing_left(trial: Trial) -> None:
    """Check that no process and no scratch file of the trial is left."""
    assert not trial.alive()
    assert not list((trial.root / "scratch").iterdir())


def finish(process: subprocess.Popen[Any]) -> int:
    try:
        return process.wait(timeout=180)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def processes_with(assignment: str) -> dict[int, str]:
    """Return the command lines of all processes whose environment holds `assignment`, by id."""
    return _processes(lambda entry: assignment.encode() in (entry / "environ").read_bytes().split(b"\0"))


def processes_in(folder: Path) -> dict[int, str]:
    """Return the command lines of all processes that work in `folder` or below, by id."""
    return _processes(lambda entry: (entry / "cwd").readlink().is_relative_to(folder.resolve()))


def _processes(wanted: Callable[[Path], bool]) -> dict[int, str]:
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted(entry):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found
