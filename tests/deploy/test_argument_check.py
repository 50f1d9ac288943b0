"""Test that software validates a plan by itself: real Dynamo 1.6.1, and stand-ins for TensorRT-LLM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.argument_checks import FLAT, NESTED, run_check
from support.composed import composed

from tune.deploy.plan import render
from tune.manifest.argument_check import read_answer
from tune.manifest.process_manifest import ProcessManifest

COMMANDS = ("command line of frontend", "command line of prefill", "command line of decode")
FILES = ("prefill.yaml", "decode.yaml")


@pytest.fixture(scope="module")
def python() -> str:
    """Return the Python that has Dynamo."""
    found = Path(__file__).parents[2] / ".venv-dynamo" / "bin" / "python3"
    if not found.exists():
        pytest.skip(f"no Dynamo at {found}: make dynamo installs it")
    return str(found)


@pytest.mark.slow
def test_what_is_rendered_is_accepted(python: str, tmp_path: Path) -> None:
    answer = run_check(tmp_path, "stack=dynamo_v1", python=python, path=NESTED)
    assert answer.accepted == (*COMMANDS, *FILES)
    assert answer.refused == answer.not_checked == {}
    assert answer.software == "ai-dynamo 1.6.1"


@pytest.mark.slow
def test_command_lines_of_mock_engines_are_accepted(python: str, tmp_path: Path) -> None:
    answer = run_check(tmp_path, "stack=dynamo_v1_mocker", python=python)
    assert answer.accepted == COMMANDS
    assert answer.refused == answer.not_checked == {}


@pytest.mark.slow
def test_key_that_the_engine_does_not_have_is_refused(python: str, tmp_path: Path) -> None:
    words = ("stack=dynamo_v1", "+decode.extra.moe_confg={backend: TRTLLM}")
    answer = run_check(tmp_path, *words, python=python, path=NESTED)
    assert list(answer.refused) == ["decode.yaml"]
    assert "moe_confg" in answer.refused["decode.yaml"]
    assert "Extra inputs are not permitted" in answer.refused["decode.yaml"]
    assert "prefill.yaml" in answer.accepted


@pytest.mark.slow
def test_flags_of_another_generation_are_refused(python: str, tmp_path: Path) -> None:
    """The stack is of mid 2025, the software is not."""
    answer = run_check(tmp_path, "stack=dynamo_v0", python=python, path=NESTED)
    assert "--disaggregation-strategy" in answer.refused["command line of prefill"]
    assert "use_cuda_graph" in answer.refused["decode.yaml"]


@pytest.mark.slow
def test_flag_with_a_wrong_value_is_refused_in_the_words_of_its_parser(python: str, tmp_path: Path) -> None:
    words = ("stack=dynamo_v1_mocker", "+stack.env.DYN_MIGRATION_LIMIT=-1")
    answer = run_check(tmp_path, *words, python=python)
    assert list(answer.refused) == ["command line of frontend"]
    assert "--migration-limit must be between 0 and" in answer.refused["command line of frontend"]


@pytest.mark.slow
def test_missing_software_refuses_nothing(python: str, tmp_path: Path) -> None:
    answer = run_check(tmp_path, "stack=dynamo_v1", python=python)
    assert answer.refused == {}
    assert answer.accepted == ("command line of frontend",)
    assert set(answer.not_checked) == {*COMMANDS[1:], *FILES}
    assert all("No module named 'tensorrt_llm'" in why for why in answer.not_checked.values())


@pytest.mark.slow
def test_older_name_of_the_class_is_found(tmp_path: Path) -> None:
    """Flat YAML, and no Dynamo: the files are validated without it."""
    answer = run_check(tmp_path, "stack=dynamo_v0", path=FLAT)
    assert answer.accepted == FILES
    assert set(answer.not_checked) == set(COMMANDS)
    broken = run_check(tmp_path, "stack=dynamo_v0", "+prefill.extra.moe_confg=1", path=FLAT)
    assert list(broken.refused) == ["prefill.yaml"]


@pytest.mark.slow
def test_what_the_engine_sorts_and_filters_is_no_refusal(tmp_path: Path) -> None:
    sizes = "decode.cuda_graph_config.batch_sizes=[64,4096,8,8]"
    answer = run_check(tmp_path, "stack=dynamo_v1", sizes, path=NESTED)
    assert answer.accepted == FILES


@pytest.mark.slow
def test_error_about_anything_but_a_value_is_no_refusal(tmp_path: Path) -> None:
    words = ("stack=dynamo_v1", "+decode.extra.moe_config={load_balancer: /not/mounted.yaml}")
    answer = run_check(tmp_path, *words, path=NESTED)
    assert answer.refused == {}
    assert "FileNotFoundError" in answer.not_checked["decode.yaml"]


def test_step_is_one_task_of_a_worker() -> None:
    words = ("cluster=slurm", "stack=dynamo_v1", "+prefill.env={LD_LIBRARY_PATH: /x, HF_TOKEN: null}")
    settings = composed(*words)
    plan = render(settings.trial_spec, settings.cluster)
    check = ProcessManifest.model_validate_json(plan.files["processes.json"]).argument_check
    assert check is not None
    worker = next(process for process in plan.processes if process.role == "prefill")
    assert (check.tasks, check.nodes, check.mpi) == (1, worker.nodes, worker.mpi)
    assert (check.env, check.inherits) == (worker.env, ("HF_TOKEN",))
    assert check.listens == ()


def test_values_of_the_job_and_secrets_are_not_in_the_file() -> None:
    words = ("cluster=slurm", "stack=dynamo_v1", "+decode.env={HF_TOKEN: null, UCX_TLS: rc}")
    settings = composed(*words)
    text = render(settings.trial_spec, settings.cluster).files["argument_check.json"]
    (decode,) = (c for c in json.loads(text)["commands"] if c["name"] == "command line of decode")
    assert decode["env"]["UCX_TLS"] == "rc"
    assert not {"HF_TOKEN", "HEAD_NODE_IP", "ETCD_ENDPOINTS"} & set(decode["env"])


def test_answer_is_found_among_what_software_prints(tmp_path: Path) -> None:
    answer = {"versions": {}, "accepted": ["a"], "refused": {}, "not_checked": {}}
    log = tmp_path / "log"
    log.write_text("loading\n" + json.dumps({"argument_check": answer}) + "INFO more words\nbye\n")
    found = read_answer(log)
    assert found is not None
    assert found.accepted == ("a",)
    log.write_text('{"argument_check": {"versions"')
    assert read_answer(log) is None
    assert read_answer(tmp_path / "none") is None
