"""job.sbatch really runs here; srun, scontrol and getent are stubs, everything else is real."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tune.deploy.plan import LaunchPlan, render, write_plan
from tune.deploy.process import bind_text
from tune.spec.cluster import ClusterFacts
from tune.spec.trial import TrialSpec

NODES = ("gb01", "gb02", "gb03", "gb04")
NASTY = 'it\'s "$(touch pwned)" `touch pwned`; touch pwned & | * ~ \\ $HOME\ntouch pwned #'


class Rack:
    """One plan on a stubbed cluster, in a folder whose name holds a space."""

    def __init__(self, folder: Path, make_spec: Callable[..., TrialSpec], stack: str) -> None:
        self.stub, self.plan_dir, self.raw = folder / "stub", folder / "a plan", folder / "raw data"
        for part in (self.stub / "calls", self.stub / "stopped", self.stub / "bin"):
            part.mkdir(parents=True)
        self.make_spec, self.ports = make_spec, free_ports()
        self.stack = {
            "stack__name": stack,
            "stack__engine_yaml": "flat" if stack == "dynamo_v0" else "nested",
        }
        self.write_stubs()

    def write_stubs(self) -> None:
        bodies = {
            "srun": f"#!{sys.executable} -ISB\n" + (Path(__file__).with_name("srun_stub.py")).read_text(),
            "scontrol": '#!/bin/bash\n[ "$1 $2" = "show hostnames" ] && tr , "\\n" <<<"$3"\n',
            "getent": '#!/bin/bash\necho "127.0.0.1 STREAM $2"\n',
            "hostname": "#!/bin/bash\necho 127.0.0.1\n",
        }
        for name, body in bodies.items():
            (self.stub / "bin" / name).write_text(body)
            (self.stub / "bin" / name).chmod(0o755)

    def render(self, facts: ClusterFacts, **changes: Any) -> LaunchPlan:
        shape = {"hardware__nodes": 4, "split__prefill_workers": 1, "split__decode_workers": 2}
        ports = {
            "stack__frontend_port": self.ports["frontend"],
            "stack__etcd_client_port": self.ports["etcd"],
            "stack__nats_port": self.ports["nats"],
        }
        spec = self.make_spec(**self.stack | shape | ports | changes)
        plan = render(spec, facts)
        write_plan(plan, self.plan_dir)
        self.model = spec.model.served_name
        return plan

    def start(self, nodes: str = ",".join(NODES), **behaviour: Any) -> subprocess.Popen[str]:
        wanted: dict[str, Any] = {"client_status": 0, "client_waits": False, "ends": [], "unregistered": []}
        wanted |= behaviour | {"ports": self.ports, "model": self.model}
        (self.stub / "behaviour.json").write_text(json.dumps(wanted))
        environment = {
            "PATH": f"{self.stub / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "STUB": str(self.stub),
            "RAW_DIR": str(self.raw),
            "SLURM_SUBMIT_DIR": str(self.plan_dir),
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": nodes,
            "SLURM_NTASKS": "1",
            "SLURM_CPU_BIND": "quiet",
            "PMI_RANK": "0",
            "POLL_S": "0.05",
            "READY_DEADLINE_S": "20",
        }
        environment |= {name: wanted[name] for name in ("READY_DEADLINE_S",) if name in wanted}
        return subprocess.Popen(
            ["bash", str(self.plan_dir / "job.sbatch")],
            env=environment,
            cwd=self.stub,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, **behaviour: Any) -> tuple[int, str]:
        with self.start(**behaviour) as job:
            printed = finish(job)
        return job.returncode, printed

    def call(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.stub / "calls" / f"{name}.json").read_text())
        return found

    @property
    def called(self) -> set[str]:
        return {path.stem for path in (self.stub / "calls").glob("*.json")}

    @property
    def stopped(self) -> set[str]:
        return {path.name for path in (self.stub / "stopped").iterdir()}

    @property
    def alive(self) -> set[str]:
        return {name for name in self.called if Path(f"/proc/{self.call(name)['pid']}").exists()}


def finish(job: subprocess.Popen[str]) -> str:
    """What the job printed; one that does not end is killed, or leaving its context would wait for ever."""
    try:
        return job.communicate(timeout=60)[0]
    except subprocess.TimeoutExpired:
        job.kill()
        raise


def free_ports() -> dict[str, int]:
    with socket.socket() as a, socket.socket() as b, socket.socket() as c:
        for one in (a, b, c):
            one.bind(("127.0.0.1", 0))
        return {
            name: one.getsockname()[1]
            for name, one in zip(("nats", "etcd", "frontend"), (a, b, c), strict=True)
        }


@pytest.fixture
def rack(tmp_path: Path, make_spec: Callable[..., TrialSpec]) -> Iterator[Rack]:
    yield (made := Rack(tmp_path, make_spec, "dynamo_v0"))
    for name in made.alive:
        os.kill(made.call(name)["pid"], signal.SIGKILL)


SERVERS = {"nats", "etcd", "frontend", "prefill_w0", "decode_w0", "decode_w1"}


def test_a_run_starts_every_process_once_and_leaves_none(
    rack: Rack, make_facts: Callable[..., ClusterFacts]
) -> None:
    plan = rack.render(make_facts())
    status, printed = rack.run()
    assert status == 0, printed
    assert rack.called == {process.name for process in plan.processes} == SERVERS | {"client"}
    assert rack.stopped == SERVERS
    assert not rack.alive
    assert (rack.raw / "nodes").read_text().split() == list(NODES)
    assert "tensorrt_llm 1 of 1, tensorrt_llm_next 2 of 2, model listed" in printed


def test_steps_are_called_as_planned(rack: Rack, make_facts: Callable[..., ClusterFacts]) -> None:
    plan = rack.render(
        make_facts(), decode__tensor_parallel_size=8, split__decode_workers=1, split__prefill_workers=2
    )
    status, printed = rack.run()
    assert status == 0, printed
    bound = {
        "HEAD_NODE": "gb01",
        "HEAD_NODE_IP": "127.0.0.1",
        "PLAN_DIR": str(rack.plan_dir),
        "RAW_DIR": str(rack.raw),
        "SCRATCH_DIR": "nothing on a cluster asks for it",
    }
    for process in plan.processes:
        called = rack.call(process.name)
        command = called["command"]
        own = {}
        if command[0] == "env":
            own = dict(part.split("=", 1) for part in command[1 : -len(process.argv)])
        assert command[-len(process.argv) :] == [bind_text(part, bound) for part in process.argv]
        given = called["environment"] | own
        assert {name: given[name] for name in process.env} == {
            name: bind_text(value, bound) for name, value in process.env.items()
        }
        options = set(called["options"])
        hosts = ",".join(NODES[node] for node in process.nodes)
        assert {f"--nodelist={hosts}", f"--ntasks={process.tasks}", "--overlap", "--overcommit"} <= options
        assert {"--kill-on-bad-exit=1", f"--output={rack.raw / process.log}"} <= options
        assert ("--mpi=pmix" in options) == bool(process.gpus)
        assert f"--ntasks-per-node={process.tasks // len(process.nodes)}" in options
    wide = rack.call("decode_w0")["options"]
    assert {"--nodes=2", "--nodelist=gb03,gb04", "--ntasks=8", "--ntasks-per-node=4"} <= set(wide)


def test_dynamo_v1_counts_instances_at_the_frontend(
    tmp_path: Path, make_spec: Callable[..., TrialSpec], make_facts: Callable[..., ClusterFacts]
) -> None:
    rack = Rack(tmp_path, make_spec, "dynamo_v1")
    rack.render(make_facts())
    status, printed = rack.run()
    assert status == 0, printed
    assert "nats" not in rack.called
    assert "prefill 1 of 1, backend/tensorrt_llm 2 of 2, model listed" in printed
    assert not rack.alive


def test_the_clients_exit_code_is_the_jobs(rack: Rack, make_facts: Callable[..., ClusterFacts]) -> None:
    rack.render(make_facts())
    status, _ = rack.run(client_status=42)
    assert status == 42
    assert rack.stopped == SERVERS


@pytest.mark.parametrize("name", ["nats", "decode_w1"])
def test_a_server_that_ends_fails_the_job_though_it_ended_with_0(
    name: str, rack: Rack, make_facts: Callable[..., ClusterFacts]
) -> None:
    rack.render(make_facts())
    status, printed = rack.run(ends=[name], unregistered=[name])
    assert status == 3
    assert f"{name} ended before the client did" in printed
    assert "out of memory, says the engine" in printed
    assert "client" not in rack.called
    assert not rack.alive


def test_a_worker_that_dies_under_load_stops_the_client(
    rack: Rack, make_facts: Callable[..., ClusterFacts]
) -> None:
    rack.render(make_facts())
    with rack.start(client_waits=True) as job:
        wait_for(lambda: "client" in rack.called)
        os.kill(rack.call("prefill_w0")["pid"], signal.SIGKILL)
        printed = finish(job)
    assert job.returncode == 3
    assert "prefill_w0 ended before the client did" in printed
    assert "client" in rack.stopped
    assert not rack.alive


def test_a_worker_that_never_registers_ends_the_wait(
    rack: Rack, make_facts: Callable[..., ClusterFacts]
) -> None:
    rack.render(make_facts())
    status, printed = rack.run(unregistered=["decode_w1"], READY_DEADLINE_S="1")
    assert status == 3
    assert "tensorrt_llm_next 1 of 2" in printed
    assert "all workers are registered within 1 s: not so" in printed
    assert rack.called == rack.stopped == SERVERS


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)]
)
def test_a_signal_stops_everything(
    sent: signal.Signals, status: int, rack: Rack, make_facts: Callable[..., ClusterFacts]
) -> None:
    rack.render(make_facts())
    with rack.start(client_waits=True) as job:
        wait_for(lambda: "client" in rack.called)
        job.send_signal(sent)
        printed = finish(job)
    assert job.returncode == status, printed
    assert rack.stopped == SERVERS | {"client"}
    assert not rack.alive


def test_too_few_nodes_start_nothing(rack: Rack, make_facts: Callable[..., ClusterFacts]) -> None:
    rack.render(make_facts())
    status, printed = rack.run(nodes="gb01,gb02")
    assert status == 3
    assert "found 2 nodes in 'gb01,gb02', expected 4" in printed
    assert not rack.called


def test_a_job_outside_its_plan_says_so(rack: Rack, make_facts: Callable[..., ClusterFacts]) -> None:
    rack.render(make_facts())
    (rack.plan_dir / "client.json").unlink()
    status, printed = rack.run()
    assert status == 3
    assert "submit from the plan's folder" in printed
    assert not rack.called


def test_steps_do_not_inherit_the_batch_steps_shape(
    rack: Rack, make_facts: Callable[..., ClusterFacts]
) -> None:
    rack.render(make_facts())
    assert rack.run()[0] == 0
    for name in rack.called:
        seen = rack.call(name)["environment"]
        assert not {"SLURM_NTASKS", "SLURM_CPU_BIND", "PMI_RANK"} & seen.keys()
        assert seen["SLURM_JOB_ID"] == "7"


def test_nasty_values_arrive_whole_and_nothing_is_evaluated(
    rack: Rack, make_facts: Callable[..., ClusterFacts]
) -> None:
    facts = make_facts(
        model_path=f"/models/{NASTY}",
        container_image=f"/images/{NASTY}",
        container_mounts=[f"/lustre/{NASTY}:/mnt"],
    )
    rack.render(
        facts, model__served_name=NASTY, decode__extra={"note": NASTY}, prefill__extra={NASTY: [NASTY]}
    )
    status, printed = rack.run()
    assert status == 0, printed
    worker = rack.call("decode_w0")
    assert worker["command"][worker["command"].index("--model-path") + 1] == f"/models/{NASTY}"
    assert worker["command"][worker["command"].index("--served-model-name") + 1] == NASTY
    assert worker["environment"]["MODEL_PATH"] == f"/models/{NASTY}"
    assert f"--container-image=/images/{NASTY}" in worker["options"]
    mounts = f"--container-mounts={rack.plan_dir}:{rack.plan_dir},/lustre/{NASTY}:/mnt"
    assert mounts in worker["options"]
    assert not any("--container" in option for option in rack.call("client")["options"])
    assert not list(rack.stub.parent.rglob("pwned"))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited 30 s"
        time.sleep(0.02)
