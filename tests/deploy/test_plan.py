from __future__ import annotations

import difflib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import tune.deploy
from tune.client.client_settings import read_client_settings
from tune.deploy.job_script import sbatch_options
from tune.deploy.plan import LaunchPlan, render, write_plan
from tune.errors import ConfigurationError, ResumableError
from tune.manifest.process import PLACEHOLDERS, Process, bind_text, client_of
from tune.manifest.process_manifest import CALIBRATION_FILE, MANIFEST_FILE, ProcessManifest, read_manifest
from tune.spec.cluster import Calibration, ClusterFacts
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]
MakeFacts = Callable[..., ClusterFacts]

GOLDEN = Path(__file__).parent / "golden"
READY_PY = (Path(tune.deploy.__file__).parent / "ready.py").read_text()

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "dynamo_v1": {"stack__name": "dynamo_v1", "stack__engine_yaml": "nested"},
    "tp8_decode": {
        "decode__tensor_parallel_size": 8,
        "split__prefill_workers": 14,
        "split__decode_workers": 2,
    },
    "tp2_sharing": {
        "prefill__tensor_parallel_size": 2,
        "split__prefill_workers": 5,
        "split__decode_workers": 2,
        "hardware__nodes": 5,
    },
}

# The plan must not change when the shape of the synthetic lengths is fitted anew.
LENGTHS = {"load__dataset__inputs__sd_tokens": 3800.0, "load__dataset__outputs__cap_frac": 0.006}


def launch_of(plan: LaunchPlan) -> ProcessManifest:
    return ProcessManifest.model_validate_json(plan.files[MANIFEST_FILE])


def workers_of(plan: LaunchPlan) -> list[Process]:
    return [process for process in plan.processes if process.gpus]


@pytest.mark.parametrize("case", CASES)
def test_plan_equals_the_golden_files(
    case: str, make_spec: MakeSpec, make_facts: MakeFacts, regenerate_golden: bool
) -> None:
    files = dict(render(make_spec(**CASES[case] | LENGTHS), make_facts()).files)
    assert files.pop("ready.py") == READY_PY
    del files[MANIFEST_FILE]
    folder = GOLDEN / case
    if regenerate_golden:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
    kept = {path.name: path.read_text() for path in folder.iterdir()}
    assert kept.keys() == files.keys()
    changed = [
        line
        for name, text in files.items()
        for line in difflib.unified_diff(
            kept[name].splitlines(), text.splitlines(), f"golden/{case}/{name}", "rendered", lineterm="", n=1
        )
    ]
    if changed:
        pytest.fail("\n".join([*changed, "", "if meant: pytest --regenerate-golden"]), pytrace=False)


@pytest.mark.parametrize("case", CASES)
def test_plan_is_read_back_from_disk(
    case: str, make_spec: MakeSpec, make_facts: MakeFacts, tmp_path: Path
) -> None:
    facts = make_facts()
    plan = render(make_spec(**CASES[case]), facts)
    write_plan(plan, tmp_path)
    launch = read_manifest(tmp_path)
    assert launch.processes == plan.processes
    assert (launch.readiness_command, launch.deadlines) == (plan.readiness_command, facts.deadlines)
    assert max(node for process in launch.processes for node in process.nodes) < launch.nodes


def test_torn_plan_is_named(make_spec: MakeSpec, make_facts: MakeFacts, tmp_path: Path) -> None:
    write_plan(render(make_spec(), make_facts()), tmp_path)
    text = (tmp_path / MANIFEST_FILE).read_text()
    (tmp_path / MANIFEST_FILE).write_text(text[: len(text) // 2])
    with pytest.raises(ResumableError, match=MANIFEST_FILE):
        read_manifest(tmp_path)


def test_variables_reach_the_processes_they_are_given_to(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    spec = make_spec(
        prefill__env={"UCX_TLS": "rc", "HF_TOKEN": None},
        decode__env={"TRTLLM_ENABLE_PDL": "1"},
        stack__env={"DYN_LOG": "debug"},
    )
    plan = render(spec, make_facts(srun_env={"ENROOT_ALLOW_DEV": "yes"}))
    given_to = {"UCX_TLS": {"prefill"}, "TRTLLM_ENABLE_PDL": {"decode"}}
    given_to["DYN_LOG"] = {"nats", "etcd", "frontend", "client"}
    for name, roles in given_to.items():
        assert {process.role for process in plan.processes if name in process.env} == roles
    assert {process.role for process in plan.processes if process.inherits == ("HF_TOKEN",)} == {"prefill"}
    assert "UCX_TLS=rc" in plan.files["commands"]
    assert launch_of(plan).srun_env == {"ENROOT_ALLOW_DEV": "yes"}


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"prefill__env": {"ETCD_ENDPOINTS": "x"}}, "prefill.env.ETCD_ENDPOINTS: found 'x'"),
        ({"stack__env": {"NATS_SERVER": None}}, "stack.env.NATS_SERVER: found None"),
        ({"decode__env": {"LOGS": "${RAW_DIR}"}}, "decode.env.LOGS: found"),
    ],
)
def test_variables_that_the_plan_sets_are_refused(
    env: dict[str, Any], words: str, make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    with pytest.raises(ConfigurationError, match=words.replace(".", r"\.")):
        render(make_spec(**env), make_facts())


def test_no_port_is_planned_twice_on_a_node(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    for case in CASES.values():
        plan = render(make_spec(**case), make_facts())
        ports = [(p.node_index, port.number) for p in plan.processes for port in p.listens]
        assert len(ports) == len(set(ports)) >= 3


def test_default_header_is_the_published_one_with_a_stop_signal(
    make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    script = render(make_spec(), make_facts()).files["job.sbatch"]
    assert [line for line in script.splitlines() if line.startswith("#SBATCH")] == [
        "#SBATCH --job-name=mlperf_405B_test",
        "#SBATCH --nodes=18",
        "#SBATCH --partition=36x2-a01r",
        "#SBATCH --account=gtc_inference",
        "#SBATCH --time=4:00:00",
        "#SBATCH --signal=B:USR2@90",
        "#SBATCH --no-requeue",
        "#SBATCH --exclusive",
        "#SBATCH --output=./slurm_llama405b_dynamo_disagg_18node_a01r_%j.txt",
    ]
    assert script.startswith("#!/bin/bash\n#SBATCH")


def test_absent_facts_leave_no_line_and_extra_lines_stay(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    facts = make_facts(
        partition=None,
        account=None,
        qos="high prio",
        reservation="maint",
        exclusive=False,
        extra_sbatch=["--overcommit", "--constraint=a&b"],
    )
    script = render(make_spec(), facts).files["job.sbatch"]
    options = [line.split()[1].split("=")[0] for line in script.splitlines() if line.startswith("#SBATCH")]
    assert options == [
        *("--job-name", "--nodes", "--qos", "--reservation", "--time", "--signal", "--no-requeue"),
        *("--overcommit", "--constraint", "--output"),
    ]
    assert "#SBATCH --qos='high prio'\n" in script
    assert "#SBATCH --constraint='a&b'\n" in script


def test_gpus_are_requested_where_they_are_generic_resources(
    make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    spec, facts = make_spec(), make_facts(gpus_per_node_option=True)
    assert sbatch_options(facts, 18, 4)["gpus-per-node"] == 4
    assert launch_of(render(spec, facts)).gpus_per_node == 4
    assert "gpus-per-node" not in sbatch_options(make_facts(), 18, 4)
    assert launch_of(render(spec, make_facts())).gpus_per_node is None


def test_image_and_mounts_are_options_of_its_steps(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    mounts = ["/lustre:/lustre", "/etc/hosts"]
    facts = make_facts(container_image="/a b.sqsh", container_mounts=mounts, container_workdir="/work")
    assert launch_of(render(make_spec(), facts)).container == (
        "--container-image=/a b.sqsh",
        "--container-mounts=${PLAN_DIR}:${PLAN_DIR},/lustre:/lustre,/etc/hosts",
        "--container-workdir=/work",
        "--container-remap-root",
        "--container-mount-home",
    )
    bare = make_facts(container_image="x", container_remap_root=False, container_mount_home=False)
    assert len(launch_of(render(make_spec(), bare)).container) == 2
    assert launch_of(render(make_spec(), make_facts())).container == ()


def test_containers_are_kept_with_an_image_and_the_setting(
    make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    image, keep = {"container_image": "x"}, {"container_keep": True}
    kept = [
        launch_of(render(make_spec(), make_facts(**facts))).keeps_containers
        for facts in ({}, keep, image, image | keep)
    ]
    assert kept == [False, False, False, True]


def test_processes_are_kept_with_dynamic_discovery_and_no_block_reuse(
    make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    reuse = {"decode__kv_cache_config__enable_block_reuse": True}
    kept = [{}, CASES["dynamo_v1"], CASES["dynamo_v1"] | reuse]
    plans = [render(make_spec(**case), make_facts()) for case in kept]
    assert [launch_of(plan).keeps_processes for plan in plans] == [False, True, False]


@pytest.mark.parametrize("field", ["job_name", "partition", "account", "qos", "reservation", "output"])
@pytest.mark.parametrize("end", ["\n", "\r", "\0"])
def test_directive_cannot_become_a_command(
    field: str, end: str, make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    with pytest.raises(ConfigurationError, match=f"cluster.{field}"):
        render(make_spec(), make_facts(**{field: f"x{end}touch pwned"}))


@pytest.mark.parametrize(
    "directive",
    ["--exclusive\ntouch pwned", "exclusive", "", "--", "--=4", "-C gb200", "--constraint gb200", "--time=1"],
)
def test_extra_sbatch_holds_options_only(directive: str, make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    with pytest.raises(ConfigurationError, match=r"cluster.extra_sbatch"):
        render(make_spec(), make_facts(extra_sbatch=[directive]))


@pytest.mark.parametrize("directive", ["--array=0-3", "--requeue", "--wait", "--comment=mine", "--parsable"])
def test_no_extra_option_repeats_or_hides_a_job(
    directive: str, make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    with pytest.raises(ConfigurationError, match=r"expected none of array, comment"):
        render(make_spec(), make_facts(extra_sbatch=[directive]))


@pytest.mark.parametrize("bad", [*PLACEHOLDERS, "a\0b"])
def test_values_with_placeholders_are_rejected(bad: str, make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    with pytest.raises(ConfigurationError, match=r"cluster.model_path"):
        render(make_spec(), make_facts(model_path=f"/models/{bad}"))
    with pytest.raises(ConfigurationError, match=r"cluster.container_image"):
        render(make_spec(), make_facts(container_image=bad))
    with pytest.raises(ConfigurationError, match=r"cluster.container_workdir"):
        render(make_spec(), make_facts(container_workdir=bad))
    with pytest.raises(ConfigurationError, match=r"cluster.container_mounts"):
        render(make_spec(), make_facts(container_mounts=["/lustre", bad]))
    with pytest.raises(ConfigurationError, match=r"model.served_name"):
        render(make_spec(model__served_name=bad), make_facts())


def test_rack_too_small_is_refused(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    with pytest.raises(
        ConfigurationError, match=r"found 15P4D .* expected workers that fit 18 nodes x 4 GPUs"
    ):
        render(make_spec(split__prefill_workers=15), make_facts())


def test_flat_stack_refuses_a_transceiver_backend(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    with pytest.raises(ConfigurationError, match="found UCX, expected DEFAULT"):
        render(make_spec(decode__cache_transceiver_config__backend="UCX"), make_facts())


def test_dynamo_v0_starts_what_the_published_launch_starts(
    make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    plan = render(make_spec(), make_facts())
    assert [p.name for p in plan.processes[:3]] == ["nats", "etcd", "frontend"]
    assert plan.processes[-1].name == "client"
    assert [p.node_index for p in workers_of(plan)] == list(range(18))
    worker = plan.processes[3]
    assert worker.tasks == 4
    assert {
        *("ETCD_ENDPOINTS", "NATS_SERVER", "HEAD_NODE", "HEAD_NODE_IP", "DISAGGREGATION_MODE"),
        *("DISAGGREGATION_STRATEGY", "ENGINE_CONFIG", "MODEL_PATH", "SERVED_MODEL_NAME"),
    } <= worker.env.keys()
    assert "CUDA_VISIBLE_DEVICES" not in worker.env
    assert worker.argv[-2:] == ("--disaggregation-strategy", "prefill_first")


def test_dynamo_v1_has_no_nats_and_no_strategy(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    plan = render(make_spec(**CASES["dynamo_v1"]), make_facts())
    assert [p.name for p in plan.processes[:2]] == ["etcd", "frontend"]
    for process in plan.processes:
        assert "--disaggregation-strategy" not in process.argv
        assert not {"NATS_SERVER", "DISAGGREGATION_STRATEGY"} & process.env.keys()
    assert plan.processes[1].env["DYN_EVENT_PLANE"] == "zmq"


def test_decode_first_swaps_the_component_names(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    plan = render(make_spec(split__disaggregation_strategy="decode_first"), make_facts())
    assert {"tensorrt_llm_next=14", "tensorrt_llm=4"} <= set(plan.readiness_command)


def test_tp8_spans_two_nodes_and_tp2_shares_one(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    wide = workers_of(render(make_spec(**CASES["tp8_decode"]), make_facts()))
    assert [p.nodes for p in wide if p.role == "decode"] == [(14, 15), (16, 17)]
    assert wide[-1].tasks == 8
    narrow = workers_of(render(make_spec(**CASES["tp2_sharing"]), make_facts()))
    seen = [(p.nodes, p.env.get("CUDA_VISIBLE_DEVICES")) for p in narrow]
    assert seen[:5] == [((0,), "0,1"), ((0,), "2,3"), ((1,), "0,1"), ((1,), "2,3"), ((2,), "0,1")]
    assert seen[5:] == [((3,), None), ((4,), None)]


@pytest.mark.slow
@hypothesis_settings(max_examples=40, deadline=None)
@given(
    prefill_workers=st.integers(1, 12),
    decode_workers=st.integers(1, 6),
    prefill_tp=st.sampled_from([1, 2, 4, 8]),
    decode_tp=st.sampled_from([1, 2, 4, 8]),
    stack=st.sampled_from([("dynamo_v0", "flat"), ("dynamo_v1", "nested")]),
)
def test_each_gpu_serves_one_worker_and_workers_are_whole(  # noqa: PLR0917
    make_spec: MakeSpec,
    make_facts: MakeFacts,
    prefill_workers: int,
    decode_workers: int,
    prefill_tp: int,
    decode_tp: int,
    stack: tuple[str, str],
) -> None:
    spec = make_spec(
        split__prefill_workers=prefill_workers,
        split__decode_workers=decode_workers,
        prefill__tensor_parallel_size=prefill_tp,
        decode__tensor_parallel_size=decode_tp,
        stack__name=stack[0],
        stack__engine_yaml=stack[1],
        hardware__nodes=36,
    )
    plan = render(spec, make_facts())
    placed = workers_of(plan)
    gpus = [gpu for process in placed for gpu in process.gpus]
    assert len(gpus) == len(set(gpus)) == prefill_workers * prefill_tp + decode_workers * decode_tp
    assert (
        len({p.log for p in plan.processes}) == len({p.name for p in plan.processes}) == len(plan.processes)
    )
    for process in placed:
        per_node = [sum(node == at for at, _ in process.gpus) for node in process.nodes]
        assert len(set(per_node)) == 1
    assert plan == render(spec, make_facts())


@pytest.mark.parametrize("case", CASES)
def test_scripts_parse_and_files_are_readable(
    case: str, make_spec: MakeSpec, make_facts: MakeFacts, tmp_path: Path
) -> None:
    spec = make_spec(**CASES[case])
    facts = make_facts(container_image="/images/a b.sqsh", container_mounts=["/lustre:/lustre"])
    write_plan(render(spec, facts), tmp_path / "plan")
    for name in ("job.sbatch", "environment"):
        subprocess.run(["bash", "-n", tmp_path / "plan" / name], check=True)
    asked = read_client_settings(tmp_path / "plan" / "client.json", "http://gb01:8000/v1")
    assert (asked.load, asked.slo) == (spec.load, spec.slo)
    assert asked.max_seq_len == spec.decode.max_sequence_tokens
    assert asked.nvext == (spec.stack.name == "dynamo_v0")
    assert yaml.safe_load((tmp_path / "plan" / "decode.yaml").read_text())["backend"] == "pytorch"
    assert not list((tmp_path / "plan").glob("*.tmp"))


def test_plan_of_a_capacity_search_holds_the_calibration(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    facts = make_facts()
    assert CALIBRATION_FILE not in render(make_spec(), facts).files
    plan = render(make_spec(load__mode="capacity"), facts)
    assert Calibration.model_validate_json(plan.files[CALIBRATION_FILE]) == facts.calibration


def test_client_of_a_probe_differs_in_settings_and_output_path(
    make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    client = render(make_spec(), make_facts()).processes[-1]
    probe = client_of(client, "probe-3")
    changed = [(old, new) for old, new in zip(client.argv, probe.argv, strict=True) if old != new]
    assert changed == [
        ("${PLAN_DIR}/client.json", "${RAW_DIR}/probe-3/client.json"),
        ("${RAW_DIR}/probe-1", "${RAW_DIR}/probe-3"),
    ]
    assert probe.log == "logs/${NODE}_client_probe-3.out"
    assert (probe.name, probe.role, probe.node_index) == (client.name, client.role, client.node_index)


def test_writing_again_replaces(make_spec: MakeSpec, make_facts: MakeFacts, tmp_path: Path) -> None:
    write_plan(render(make_spec(), make_facts()), tmp_path)
    write_plan(render(make_spec(load__target_qps=3.0), make_facts()), tmp_path)
    assert json.loads((tmp_path / "client.json").read_text())["load"]["target_qps"] == 3.0


def test_unwritable_plan_folder_is_one_clear_error(
    make_spec: MakeSpec, make_facts: MakeFacts, tmp_path: Path
) -> None:
    (tmp_path / "plan").write_text("a file where the folder should be")
    with pytest.raises(ConfigurationError, match=r"cannot be written .* expected a folder"):
        write_plan(render(make_spec(), make_facts()), tmp_path / "plan")


def test_full_disk_is_one_clear_error(make_spec: MakeSpec, make_facts: MakeFacts, tmp_path: Path) -> None:
    (tmp_path / "job.sbatch.tmp").symlink_to("/dev/full")
    with pytest.raises(ResumableError, match=r"No space left .* and free space"):
        write_plan(render(make_spec(), make_facts()), tmp_path)


def test_commands_hold_one_process_a_line(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    plan = render(make_spec(), make_facts())
    rows = [line.split("\t") for line in plan.files["commands"].splitlines()[1:]]
    assert [row[2] for row in rows] == [process.name for process in plan.processes]
    assert {len(row) for row in rows} == {4}


def test_bind_text_fills_every_placeholder() -> None:
    values = {"HEAD_NODE": "gb01", "HEAD_NODE_IP": "10.0.0.1", "NODE": "gb02", "NODE_IP": "10.0.0.2"}
    values |= {"PLAN_DIR": "/p", "RAW_DIR": "/r", "SCRATCH_DIR": "/s"}
    assert bind_text(" ".join(PLACEHOLDERS), values) == "gb01 10.0.0.1 gb02 10.0.0.2 /p /r /s"
    with pytest.raises(KeyError):
        bind_text("x", {})
