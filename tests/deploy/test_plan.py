from __future__ import annotations

import difflib
import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.plans import CASES, launch_of

import tune.deploy
from tune.client.client_settings import read_client_settings
from tune.deploy.plan import render, write_plan
from tune.errors import ConfigurationError, ResumableError
from tune.manifest.process import PLACEHOLDERS, address_of, address_values, bind_text, client_of
from tune.manifest.process_manifest import CALIBRATION_FILE, MANIFEST_FILE, read_manifest
from tune.spec.cluster import Calibration, ClusterFacts
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]
MakeFacts = Callable[..., ClusterFacts]

GOLDEN = Path(__file__).parent / "golden"
SCRIPTS = {
    name: (Path(tune.deploy.__file__).parent / name).read_text()
    for name in ("ready.py", "check_arguments.py", "collect_evidence.py")
}


# The plan must not change when the shape of the synthetic lengths is fitted anew.
LENGTHS = {"load__dataset__inputs__sd_tokens": 3800.0, "load__dataset__outputs__cap_frac": 0.006}


@pytest.mark.parametrize("case", CASES)
def test_plan_equals_the_golden_files(
    case: str, make_spec: MakeSpec, make_facts: MakeFacts, regenerate_golden: bool
) -> None:
    files = dict(render(make_spec(**CASES[case] | LENGTHS), make_facts()).files)
    assert {name: files.pop(name) for name in SCRIPTS} == SCRIPTS
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
    given_to = {("UCX_TLS", "rc"): {"prefill"}, ("TRTLLM_ENABLE_PDL", "1"): {"decode"}}
    given_to["DYN_LOG", "debug"] = {"nats", "etcd", "frontend", "client"}
    for variable, roles in given_to.items():
        assert {process.role for process in plan.processes if variable in process.env.items()} == roles
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


@pytest.mark.parametrize("case", CASES)
def test_scripts_parse_and_files_are_readable(
    case: str, make_spec: MakeSpec, make_facts: MakeFacts, tmp_path: Path
) -> None:
    spec = make_spec(**CASES[case])
    facts = make_facts(container_image="/images/a b.sqsh", container_mounts=["/lustre:/lustre"])
    write_plan(render(spec, facts), tmp_path / "plan")
    for name in ("job.sbatch", "environment"):
        subprocess.run(["bash", "-n", tmp_path / "plan" / name], check=True)
    asked = read_client_settings(tmp_path / "plan" / "client.json", ["http://gb01:8000/v1"])
    assert (asked.load, asked.slo) == (spec.load, spec.slo)
    assert asked.max_seq_len == spec.decode.max_sequence_tokens
    assert asked.nvext == (spec.stack.name == "dynamo_v0")
    assert yaml.safe_load((tmp_path / "plan" / "decode.yaml").read_text())["backend"] == "pytorch"
    assert not list((tmp_path / "plan").glob("*.tmp"))


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck on this machine")
@pytest.mark.parametrize("case", CASES)
def test_scripts_pass_shellcheck(
    case: str, make_spec: MakeSpec, make_facts: MakeFacts, tmp_path: Path
) -> None:
    write_plan(render(make_spec(**CASES[case]), make_facts()), tmp_path)
    subprocess.run(["shellcheck", "job.sbatch", "rank.sh"], cwd=tmp_path, check=True)


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


def test_full_disk_is_one_clear_error(
    make_spec: MakeSpec, make_facts: MakeFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(ResumableError, match=r"No space left .* and free space"):
        write_plan(render(make_spec(), make_facts()), tmp_path)


def test_frontends_are_placed_over_the_nodes(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    """20 frontends on 18 nodes: one on each, then the head node and the next again, each with its port."""
    plan = render(make_spec(split__frontends=20), make_facts())
    frontends = [process for process in plan.processes if process.role == "frontend"]
    assert [process.name for process in frontends] == ["frontend"] + [f"frontend_{i}" for i in range(1, 20)]
    assert [process.node_index for process in frontends] == [*range(18), 0, 1]
    assert [process.metrics_port for process in frontends] == list(range(8000, 8020))
    assert all(process.argv[-1] == str(process.metrics_port) for process in frontends)
    urls = ["http://${HEAD_NODE_IP}:8000", *(f"http://${{NODE_{i}_IP}}:{8000 + i}" for i in range(1, 18))]
    urls += ["http://${HEAD_NODE_IP}:8018", "http://${NODE_1_IP}:8019"]
    client = plan.processes[-1].argv
    asked = [client[i + 1] for i, word in enumerate(client) if word == "--endpoint"]
    assert asked == [f"{url}/v1" for url in urls]
    awaited = plan.readiness_command
    assert [awaited[i + 1] for i, word in enumerate(awaited) if word == "--frontend"] == urls
    shared = plan.files["commands"].replace("frontend_19", "")
    assert '"${NODE_1_IP}"' in shared, "a shell that knows the addresses expands them"


def test_one_frontend_leaves_no_trace_in_records(make_spec: MakeSpec) -> None:
    """Trials of earlier versions keep their ids."""
    assert "frontend_choice" not in make_spec().canonical()
    assert '"frontends"' not in make_spec().canonical()
    changed = [make_spec(split__frontends=2), make_spec(split__frontend_choice="fewest_input_tokens")]
    assert len({spec.trial_id for spec in [make_spec(), *changed]}) == 3


def test_commands_hold_one_process_a_line(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    plan = render(make_spec(), make_facts())
    rows = [line.split("\t") for line in plan.files["commands"].splitlines()[1:]]
    assert [row[2] for row in rows] == [process.name for process in plan.processes]
    assert {len(row) for row in rows} == {4}


def test_bind_text_fills_every_placeholder() -> None:
    values = {"HEAD_NODE": "gb01", "HEAD_NODE_IP": "10.0.0.1", "NODE": "gb02", "NODE_IP": "10.0.0.2"}
    values |= {"PLAN_DIR": "/p", "RAW_DIR": "/r", "SCRATCH_DIR": "/s"} | address_values(
        ["10.0.0.1", "10.0.0.3"]
    )
    assert bind_text(" ".join(PLACEHOLDERS), values) == "gb01 10.0.0.1 gb02 10.0.0.2 /p /r /s"
    assert bind_text(f"{address_of(0)} {address_of(1)} $NODE_1_IP", values) == "10.0.0.1 10.0.0.3 $NODE_1_IP"
    with pytest.raises(KeyError):
        bind_text(address_of(2), values)
