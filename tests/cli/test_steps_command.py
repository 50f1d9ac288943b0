"""Test what action=steps reads, writes and prints."""

from __future__ import annotations

import csv
import gzip
import tarfile
from pathlib import Path

import pytest
from support.command_line import Tune
from support.composed import changed, composed

from tune.cli.steps_command import steps_action
from tune.config import ComposedConfig
from tune.errors import ConfigurationError
from tune.spec.cluster import Calibration
from tune.spec.step_table import StepRow

GPU_RUN = Path(__file__).parents[1] / "data" / "gpu" / "h200_x2.tar.xz"
EXAMPLE = Path(__file__).parents[2] / "examples" / "mine" / "steps" / "h200_x2.csv"
HEADER = "context_requests,context_tokens,generation_requests,generation_tokens,elapsed_s\n"


def run(*changes: str) -> None:
    settings = composed("stack=dynamo_vllm", "prefill=vllm", "decode=vllm")
    steps_action(ComposedConfig(changed(settings, *changes), "single-sim", changes))


def table_settings() -> dict[str, object]:
    calibration = composed().cluster.calibration
    assert calibration is not None
    return calibration.model_dump()


def table(path: Path) -> Calibration:
    tables = {"prefill_steps": str(path), "decode_steps": str(path)}
    return Calibration.model_validate(table_settings() | tables)


def step_rows(path: Path, phase: str) -> tuple[StepRow, ...]:
    """Return the rows of one phase, however few."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["phase"] == phase]
    return tuple(
        StepRow(
            int(line["batch"]), int(line["new_tokens"]), None, float(line["milliseconds"]), int(line["steps"])
        )
        for line in lines
    )


def test_medians_of_all_workers_are_written_with_their_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    prefill = "".join(f"1,512,0,0,{time}\n" for time in (0.020, 0.024, 0.100)) + "1,900,0,0,0.04\n"
    (logs / "prefill_w0.log").write_text(HEADER + prefill)
    for worker in range(2):
        decode = f"0,0,2,2,0.00{8 + worker}\n0,0,1,1,0.005\n0,0,2,6,0.01\n"
        with gzip.open(logs / f"decode_w{worker}_steps.csv.gz", "wt") as file:
            file.write(HEADER + decode)
        (logs / f"decode_w{worker}.out").write_text("0,0,9,9,0.5\n")
    run(f"logs={logs}", f"to={tmp_path / 'steps.csv'}")
    calibration = table(tmp_path / "steps.csv")
    assert calibration.prefill_steps == (StepRow(1, 512, None, 24.0, 3), StepRow(1, 900, None, 40.0, 1))
    assert calibration.decode_steps == (StepRow(1, 1, None, 5.0, 2), StepRow(2, 2, None, 8.5, 2))
    printed = capsys.readouterr().out
    assert "read      3 logs with steps" in printed
    assert "decode    4 steps in 2 rows" in printed
    assert "left out  2 decode steps with another number of draft tokens" in printed
    assert "continued answers" not in printed
    assert "warning" not in printed
    assert f"cluster.calibration.decode_steps={tmp_path / 'steps.csv'}" in printed


def test_steps_with_draft_tokens_are_a_table_where_most_steps_have_as_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three draft tokens in five steps of two sizes; one step has none, one has two for 3 sequences of 4."""
    steps = "0,0,2,8,0.01\n0,0,2,8,0.02\n0,0,2,8,0.03\n0,0,50,200,0.05\n0,0,51,204,0.06\n"
    (tmp_path / "decode.log").write_text(f"{HEADER}{steps}0,0,2,2,0.005\n0,0,4,10,0.02\n")
    run(f"logs={tmp_path}", f"to={tmp_path / 'steps.csv'}")
    calibration = Calibration.model_validate(table_settings() | {"decode_steps": str(tmp_path / "steps.csv")})
    assert calibration.decode_steps == (StepRow(2, 8, None, 20.0, 3), StepRow(50, 200, None, 55.0, 2))
    printed = capsys.readouterr().out
    assert "decode    5 steps in 2 rows" in printed
    assert "left out  2 decode steps with another number of draft tokens" in printed


def test_steps_that_read_prompts_beside_answers_are_rows_of_prefill_with_a_token_for_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of an aggregated worker; their batch plays no part, as an answer is one token of theirs."""
    steps = "1,512,0,0,0.024\n1,512,2,2,0.025\n1,508,9,9,0.027\n2,500,14,14,0.026\n0,0,9,9,0.008\n"
    (tmp_path / "aggregated_w0.log").write_text(HEADER + steps)
    run(f"logs={tmp_path}", f"to={tmp_path / 'steps.csv'}")
    rows = step_rows(tmp_path / "steps.csv", "prefill")
    assert rows == (StepRow(1, 512, None, 24.0, 1), StepRow(10, 514, None, 26.0, 3))
    printed = capsys.readouterr().out
    assert "prefill   4 steps in 2 rows" in printed
    assert "among     prefill 3 that continued answers too, each a token more" in printed
    assert "left out" not in printed


def test_mixed_steps_whose_contexts_are_those_of_both_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def line(number: int, states: str) -> str:
        return (
            f"[TRT-LLM] [I] iter = {number}, rank = 0, currank_total_requests = 1/8, elapsed_time = 0.02s, "
            f"num_scheduled_requests: 4, states = {{'num_ctx_requests': {states}, "
            "'cached_kv_tokens': 90}\n"
        )

    mixed = line(1, "1, 'num_ctx_tokens': 500, 'num_generation_tokens': 3")
    read = line(2, "4, 'num_ctx_tokens': 900, 'num_generation_tokens': 0")
    (tmp_path / "aggregated_w0.log").write_text(mixed + read)
    settings = composed()
    words = (f"logs={tmp_path}", f"to={tmp_path / 'steps.csv'}")
    steps_action(ComposedConfig(changed(settings, *words), "single-sim", words))
    printed = capsys.readouterr().out
    assert "prefill   1 steps in 1 row" in printed
    assert "left out  1 steps that read prompts and continued answers at once" in printed


def test_a_run_on_gpus_gives_a_table_and_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The two logs of tests/data/gpu: 420 and 2,709 steps; vLLM scheduled asynchronously."""
    with tarfile.open(GPU_RUN) as archive:
        logs = [file for file in archive if file.name.startswith("fixed/") and "_steps." in file.name]
        archive.extractall(tmp_path, logs, filter="data")
    run(f"logs={tmp_path}", f"to={tmp_path / 'steps.csv'}")
    calibration = table(tmp_path / "steps.csv")
    assert calibration.prefill_steps
    assert calibration.decode_steps
    assert calibration.prefill_steps[0] == StepRow(1, 512, None, 24.51, 375)
    assert sum(row.steps for row in calibration.prefill_steps) == 420
    assert sum(row.steps for row in calibration.decode_steps) == 2709
    assert (tmp_path / "steps.csv").read_text() == EXAMPLE.read_text()
    assert "231 decode steps took less than a quarter of the median" in capsys.readouterr().out


def test_an_earlier_table_is_replaced_and_another_file_kept(tmp_path: Path) -> None:
    (tmp_path / "w0.log").write_text("0,0,1,1,0.005\n")
    target = tmp_path / "steps.csv"
    run(f"logs={tmp_path}", f"to={target}")
    written = target.read_text()
    run(f"logs={tmp_path}", f"to={target}")
    assert target.read_text() == written
    target.write_text("precious\n")
    with pytest.raises(ConfigurationError, match="is there and is no table of step times"):
        run(f"logs={tmp_path}", f"to={target}")
    assert target.read_text() == "precious\n"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"action=steps needs logs=DIR, .* and to=FILE\.csv"):
        run(f"logs={tmp_path}")
    with pytest.raises(ConfigurationError, match="found no folder"):
        run(f"logs={tmp_path / 'none'}", "to=steps.csv")
    (tmp_path / "w0.log").write_text("nothing\n")
    with pytest.raises(ConfigurationError, match=r"found no step of a worker .*print_iter_log"):
        run(f"logs={tmp_path}", f"to={tmp_path / 'steps.csv'}")


@pytest.mark.slow
def test_a_search_says_in_words_what_it_extrapolates(tune: Tune) -> None:
    """The simulator runs in a process of its own there, whose warnings are printed as the command's."""
    rack = ("hardware=h200_x2", "split=1p1d", "model=llama3_1_70b_24layers")
    pools = ("stack=dynamo_vllm", "prefill=vllm_one_gpu", "decode=vllm_one_gpu")
    load = (
        "load=fixed",
        "load.dataset.inputs.tokens=512",
        "load.dataset.outputs.tokens=128",
        "load.mode=capacity",
    )
    small = ("load.min_queries=470", "load.min_duration_s=5", "load.target_qps=25", "load.resolution=0.2")
    tables = [
        f"cluster.calibration.{phase}_{key}"
        for phase in ("prefill", "decode")
        for key in (f"steps={EXAMPLE}", "scale=1.5")
    ]
    done = tune(
        *rack, *pools, *load, *small, *tables, "load.concatenate_permutation=false", "slo.ttft_p99_s=1"
    )
    assert done.returncode == 0, done.stderr
    assert "warning: cluster.calibration.decode_steps: " in done.stderr
    assert "ExtrapolatedSteps" not in done.stderr
