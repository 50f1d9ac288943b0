"""Test what stands before the commands of a plan: prefixes, rank.sh with its delays, and options of srun."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from tune.deploy.launch_command import launch_command
from tune.deploy.plan import LaunchPlan, render, write_plan
from tune.engines.trtllm.worker_process import PORT_CHOICE_S
from tune.errors import ConfigurationError
from tune.manifest.process import PLAN_DIR, RANK_SCRIPT, START_ETCD, Process, programs
from tune.orchestrator.supervision.scratch import remove_unused_scratch
from tune.spec.cluster import ClusterFacts
from tune.spec.environment import SECRET_VALUE
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]
MakeFacts = Callable[..., ClusterFacts]
NUMACTL = ("numactl", "-m", "0,1")
TODAY = {"stack__name": "dynamo_v1", "stack__engine_yaml": "nested"}
V07 = TODAY | {"stack__name": "dynamo_v07"}
SHARING = {"prefill__tensor_parallel_size": 1, "split__prefill_workers": 8}


def delays(plan: LaunchPlan, role: str) -> list[float]:
    """Return the delay in the command of each worker of a pool."""
    return [float(process.argv[3]) for process in plan.processes if process.role == role]


def test_each_role_has_its_prefix(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    prefix = {"prefill": NUMACTL, "frontend": ("taskset", "-c", "0-7")}
    plan = render(make_spec(split__frontends=2), make_facts(command_prefix=prefix))
    for process in plan.processes:
        match process.role:
            case "prefill":
                assert process.argv[4:8] == (*NUMACTL, "trtllm-llmapi-launch")
                assert programs(process) == ("bash", "numactl")
            case "decode":
                assert process.argv[4] == "trtllm-llmapi-launch"
            case "frontend":
                assert process.argv[:4] == ("taskset", "-c", "0-7", "python3")
    check = plan.files["argument_check.json"]
    assert '"program": "dynamo.trtllm"' in check, "numactl has an -m too"
    assert '"name": "command line of frontend"' in check


@pytest.mark.parametrize(
    ("stack", "stagger_s", "delay_s"),
    [
        ({}, 0.0, PORT_CHOICE_S),
        ({}, 90.0, 90.0),
        (V07, 0.0, PORT_CHOICE_S),
        (TODAY, 0.0, 0.0),
        (TODAY, 75.0, 75.0),
    ],
)
def test_workers_of_a_node_start_one_after_another(
    stack: dict[str, str], stagger_s: float, delay_s: float, make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    """Eight workers of one GPU on two nodes: every node starts its own four in turn."""
    plan = render(make_spec(**SHARING, **stack), make_facts(load_stagger_s=stagger_s))
    assert delays(plan, "prefill") == [delay_s * slot for slot in (0, 1, 2, 3, 0, 1, 2, 3)]
    assert delays(plan, "decode") == [0.0] * 4


def test_a_worker_that_is_no_mpi_job_waits_for_its_turn_too(make_facts: MakeFacts) -> None:
    command = ("python3", "-m", "dynamo.vllm")
    worker = Process("prefill_w1", "prefill", 0, ((0, 1),), {}, command, "log")
    facts = make_facts(load_stagger_s=75.0, command_prefix={"prefill": NUMACTL})
    waiting = launch_command(worker, facts, 75.0)
    assert waiting.argv == ("bash", f"{PLAN_DIR}/{RANK_SCRIPT}", "prefill_w1", "75", *NUMACTL, *command)
    assert programs(waiting) == ("bash", "numactl")
    assert launch_command(worker, facts, 0.0).argv == (*NUMACTL, *command)


def test_workers_of_a_node_have_addresses_of_their_own(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    plan = render(make_spec(**SHARING, **TODAY), make_facts())
    name = "TLLM_SPAWN_PROXY_PROCESS_IPC_ADDR"
    prefill = [process for process in plan.processes if process.role == "prefill"]
    addresses = [(process.node_index, process.env[name]) for process in prefill]
    assert len(set(addresses)) == len(prefill)
    assert all(name not in process.env for process in plan.processes if process.role == "decode")


def start_rank(plan: Path, worker: str, rank: int, *command: str, delay_s: int = 0, **env: str) -> str:
    """Run rank.sh as one rank; return what its command prints."""
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(plan), "SLURM_PROCID": str(rank)} | env
    argv = ["bash", str(plan / RANK_SCRIPT), worker, str(delay_s), *command]
    return subprocess.run(argv, env=environment, check=True, capture_output=True, text=True).stdout


def test_every_rank_has_cache_folders_of_its_own(
    make_spec: MakeSpec, make_facts: MakeFacts, tmp_path: Path
) -> None:
    write_plan(render(make_spec(), make_facts()), tmp_path)
    shows = (
        "bash",
        "-c",
        'echo "$HF_MODULES_CACHE"; echo "$FLASHINFER_WORKSPACE_BASE"; ls -d $HF_MODULES_CACHE',
    )
    seen = set()
    for worker in ("prefill_w0", "decode_w0"):
        for rank in (0, 1):
            modules, flashinfer, made = start_rank(tmp_path, worker, rank, *shows).splitlines()
            assert made == modules
            seen |= {modules, flashinfer}
    assert len(seen) == 8
    (own, *_) = start_rank(tmp_path, "w", 0, *shows, HF_MODULES_CACHE=str(tmp_path / "own")).splitlines()
    assert own == str(tmp_path / "own"), "a folder that prefill.env names is kept"


def test_rank_script_passes_arguments_and_exit_code(
    make_spec: MakeSpec, make_facts: MakeFacts, tmp_path: Path
) -> None:
    write_plan(render(make_spec(), make_facts()), tmp_path)
    assert start_rank(tmp_path, "w", 0, "printf", "%s|", "a b", "", "$HOME") == "a b||$HOME|"
    with pytest.raises(subprocess.CalledProcessError) as ended:
        start_rank(tmp_path, "w", 0, "bash", "-c", "exit 7")
    assert ended.value.returncode == 7


def test_srun_options_reach_every_step(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    given = ("--cpu-bind=verbose,none", "--container-writable", "--gpus=8", "--exclusive")
    facts = make_facts(srun_options=given, mpi="pmix_v4", container_image="/images/dynamo.sqsh")
    text = render(make_spec(), facts).files["processes.json"]
    assert '"--cpu-bind=verbose,none"' in text
    assert '"mpi": "pmix_v4"' in text


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("cpu-bind=none", "a long option of srun"),
        ("-N2", "a long option of srun"),
        ("--cpu bind=none", "a long option of srun"),
        ("--nodes=2", "none that tune sets itself"),
        ("--mpi=pmi2", "none that tune sets itself"),
        ("--nodel=g09", "none that tune sets itself: --nodelist"),
        ("--ntasks_per_node=1", "none that tune sets itself: --ntasks-per-node"),
        ("--contain=x", "none that tune sets itself: --container-image"),
        ("--clusters=other", "no --clusters: a step runs on the nodes of its job"),
        ("--het-group=1", "no --het-group: a step runs on the nodes of its job"),
        ("--rel=2", "no --relative: a step runs on the nodes of its job"),
        ("--export=ALL,HF_TOKEN", "no --export: a step gets the variables"),
        ("--export-f=/home/me/env", "no --export-file: a step gets the variables"),
        ("--multi-prog", "no --multi-prog: a step runs the command of the plan"),
        ("--container-writable", "no option of an image without cluster.container_image"),
        ("--comment=${PLAN_DIR}", "expected a text without"),
    ],
)
def test_wrong_srun_options_are_refused(
    option: str, expected: str, make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    with pytest.raises(ConfigurationError, match=r"cluster\.srun_options") as refused:
        render(make_spec(), make_facts(srun_options=(option,)))
    assert expected in str(refused.value)


@pytest.mark.parametrize("field", ["srun_options", "extra_sbatch"])
@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--container-env=HF_TOKEN=s3cr3t"], "HF_TOKEN"),
        (["--wckey=TOKEN=s3cr3t"], "TOKEN"),
        (["--export=ALL,HF_TOKEN=s3cr3t"], "HF_TOKEN"),
        (["--site-api-key=s3cr3t"], "site-api-key"),
        (["--site-api-key", "s3cr3t"], "site-api-key"),
        (["--mem=0", '--comment={"password": "s3cr3t"}'], "password"),
    ],
)
def test_no_secret_stands_in_an_option_of_slurm(
    field: str, options: list[str], name: str, make_facts: MakeFacts
) -> None:
    """Refuse it: processes.json and study.json hold the options of srun, job.sbatch those of sbatch."""
    with pytest.raises(ValidationError) as refused:
        make_facts(**{field: options})
    (error,) = refused.value.errors()
    assert (error["loc"], error["type"]) == ((field,), SECRET_VALUE)
    assert error["msg"].startswith(f"{name} looks like a secret, and settings are recorded")
    assert "s3cr3t" not in error["msg"]


@pytest.mark.parametrize("field", ["srun_options", "extra_sbatch"])
@pytest.mark.parametrize("option", ["--container-env=HF_TOKEN,UCX_TLS", "--wckey=mine", "--constraint=a"])
def test_an_option_of_slurm_without_a_secret_is_kept(field: str, option: str, make_facts: MakeFacts) -> None:
    assert getattr(make_facts(**{field: [option, "--mem=0"]}), field) == (option, "--mem=0")


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no memory file system here")
def test_etcd_has_its_data_in_memory_until_it_ends(tmp_path: Path) -> None:
    """The folder is locked while the program that stands for etcd runs, and removed afterwards."""
    program = tmp_path / "etcd"
    program.write_text('#!/bin/bash\necho "$1 $2 $3"\nread -r line\n')
    program.chmod(0o755)
    argv = ["bash", "-c", START_ETCD, str(program), "--listen-client-urls"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as etcd:
        assert etcd.stdout is not None
        assert etcd.stdin is not None
        option, folder, further = etcd.stdout.readline().split()
        data = Path(folder)
        assert (option, further, data.parent) == ("--data-dir", "--listen-client-urls", Path("/dev/shm"))
        remove_unused_scratch()
        assert data.is_dir(), "another orchestrator leaves it alone"
        etcd.stdin.close()
    remove_unused_scratch()
    assert not data.exists()


def test_etcd_is_found_where_images_of_dynamo_have_it(tmp_path: Path) -> None:
    """It is a program in a folder of its own name, whose PATH is lost with the image's variables."""
    (tmp_path / "etcd").mkdir()
    program = tmp_path / "etcd" / "etcd"
    program.write_text("#!/bin/bash\necho started\n")
    program.chmod(0o755)
    moved = START_ETCD.replace("/usr/local/bin", str(tmp_path))
    assert moved != START_ETCD
    path = f"{tmp_path}:{os.environ['PATH']}"
    argv = ["bash", "-c", moved, "etcd"]
    done = subprocess.run(argv, env={"PATH": path}, capture_output=True, text=True, check=False)
    assert done.stdout == "started\n", done.stderr


@pytest.mark.slow
def test_a_rank_that_waits_says_so(make_spec: MakeSpec, make_facts: MakeFacts, tmp_path: Path) -> None:
    write_plan(render(make_spec(), make_facts()), tmp_path)
    said = start_rank(tmp_path, "prefill_w1", 0, "echo", "begun", delay_s=1).splitlines()
    assert said == ["prefill_w1 has waited 0/1 s for the workers before it on this node", "begun"]
