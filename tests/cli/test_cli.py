"""Test the command line by real processes: exit codes, what is printed and what lies on disk."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from support.command_line import Tune
from support.command_line import names_in as written

from tune.config import shipped_options

SHORT = ("load.min_duration_s=120.0", "load.concatenate_permutation=false")
PUBLISHED = Path(__file__).parents[1] / "data" / "loadgen" / "v5.0.25_published"
STACKS_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "stacks.md"


@pytest.mark.slow
def test_reference_trial_runs_and_is_recorded(tune: Tune, tmp_path: Path) -> None:
    done = tune()
    assert done.returncode == 0, done.stderr
    assert "14P4D" in done.stdout
    assert "tokens/s/GPU" in done.stdout
    assert "LoadGen   VALID" in done.stdout
    assert "the SLO holds in 4 of 5 shuffles" in done.stdout
    assert "3 warnings on the reference configuration as shipped" in done.stderr
    assert written(tmp_path) == {"runs"}
    again = tune()
    assert again.returncode == 0
    assert "on record" in again.stdout
    assert again.stdout.splitlines()[:5] == done.stdout.splitlines()[:5]
    assert "warning" not in again.stderr, "what is shipped is said once in a study"
    own = tune("decode.max_seq_len=20100", "rerun=true")
    assert "warning: decode.max_seq_len" in own.stderr


@pytest.mark.slow
def test_violated_slo_is_a_result_and_no_error(tune: Tune) -> None:
    done = tune("load.target_qps=31.5")
    assert done.returncode == 0
    assert "verdict   SLO violated: saturated at 1" in done.stdout
    assert "of 31.5 queries/s" in done.stdout


@pytest.mark.slow
def test_documented_overrides_work(tune: Tune) -> None:
    done = tune(
        "split.prefill_workers=13",
        "split.decode_workers=5",
        "load.target_qps=14",
        "prefill.max_num_tokens=8192",
        "runs_dir=elsewhere",
        "study.name=mine",
        *SHORT,
    )
    assert done.returncode == 0, done.stderr
    assert "13P5D TP4/TP4  14 queries/s" in done.stdout
    assert "elsewhere/mine/" in done.stdout


@pytest.mark.slow
def test_study_prints_report_status_and_trials(tune: Tune, tmp_path: Path) -> None:
    study = ("+sweep=pd_split", "study.n_trials=6", *SHORT)
    done = tune(*study)
    assert done.returncode == 0, done.stderr
    assert "reports/pd_split-sim/index.html" in done.stdout
    assert "tokens/s/GPU" in done.stdout
    assert written(tmp_path) == {"runs", "reports"}
    assert written(tmp_path / "reports" / "pd_split-sim") == {"index.html", "ranking.csv", "ranking.json"}
    ranking = json.loads((tmp_path / "reports" / "pd_split-sim" / "ranking.json").read_text())
    assert [row["rank"] for row in ranking] == list(range(1, len(ranking) + 1))

    (tmp_path / "reports" / "pd_split-sim" / "index.html").unlink()
    again = tune(*study)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "reports" / "pd_split-sim" / "ranking.json").read_text()) == ranking
    assert (tmp_path / "reports" / "pd_split-sim" / "index.html").exists()

    status = tune("action=status", "study.name=pd_split-sim")
    assert "6 of 6 done" in status.stdout
    by_number = tune("action=status", "study.name=pd_split-sim", f"trial={ranking[0]['number']}")
    assert ranking[0]["trial_id"] in by_number.stdout
    one = tune("action=status", "study.name=pd_split-sim", f"trial={ranking[0]['trial_id']}")
    assert ranking[0]["trial_id"] in one.stdout
    assert "again     python -m tune" in one.stdout
    report = tune("action=report", "study.name=pd_split-sim", "reports_dir=other")
    assert report.returncode == 0
    assert (tmp_path / "other" / "pd_split-sim" / "index.html").exists()
    both = [f"pd_split-sim/{row['trial_id']}" for row in ranking[:2]]
    compared = tune("action=compare", f"compare.a={both[0]}", f"compare.b={both[1]}")
    assert compared.returncode == 0, compared.stderr
    assert "load.target_qps" in compared.stdout
    assert "output tokens/s/GPU" in compared.stdout
    assert compared.stdout.splitlines()[-1].endswith(("for this difference", "is the same in both"))

    other = tune(*study, "study.seed=4")
    assert other.returncode == 2
    assert "study.seed: the study has 0, this command says 4" in other.stderr


@pytest.mark.slow
def test_study_without_feasible_configuration_exits_with_1(tune: Tune) -> None:
    done = tune("+sweep=pd_split", "study.n_trials=4", "slo.ttft_p99_s=0.05", *SHORT)
    assert done.returncode == 1
    assert "No configuration of this study holds its SLO" in done.stderr
    assert "index.html" in done.stdout


@pytest.mark.slow
def test_plan_is_written_and_nothing_runs(tune: Tune, tmp_path: Path) -> None:
    done = tune("action=plan", "cluster=slurm", "cluster.partition=batch", "cluster.account=foo")
    assert done.returncode == 0, done.stderr
    (plan,) = tmp_path.glob("runs/*/*/plan")
    assert {"prefill.yaml", "decode.yaml", "environment", "commands", "job.sbatch"} <= written(plan)
    assert "#SBATCH --partition=batch" in (plan / "job.sbatch").read_text()
    assert "warning: cluster.model_path: it is a value of the example" in done.stderr
    refused = tune("cluster=slurm", "cluster.partition=batch", "cluster.account=foo")
    assert refused.returncode == 2
    assert "error: cluster.model_path\n  found     /your/path" in refused.stderr
    assert written(plan.parent) == {"plan", "spec.json"}
    assert "prefill_w13   node:gpu 13:0 13:1 13:2 13:3" in done.stdout


@pytest.mark.slow
def test_missing_slurm_is_one_clear_error(tune: Tune, tmp_path: Path) -> None:
    own = ("cluster.partition=batch", "cluster.account=null", "cluster.model_path=/models/405b")
    done = tune("cluster=slurm", *own, PATH=str(tmp_path))
    assert done.returncode == 2
    assert "no sbatch, srun, squeue, scontrol, scancel on the PATH" in done.stderr
    assert "nothing was submitted" in done.stderr


@pytest.mark.slow
def test_once_is_refused_without_detached_jobs(tune: Tune, tmp_path: Path) -> None:
    done = tune("study.once=true")
    assert done.returncode == 2
    assert "study.once: found true with cluster=sim" in done.stderr
    assert written(tmp_path) == set()


@pytest.mark.slow
def test_preflight_prints_every_finding(tune: Tune, tmp_path: Path) -> None:
    good = tune("action=preflight")
    assert good.stdout.count("their requests are not counted") == 1, "the default stack opens no port"
    own = "stack dynamo_v0 is for Dynamo of mid 2025, before 0.4 with TensorRT-LLM 1.0.0rc0 to rc3."
    assert own in good.stdout
    assert "stack=dynamo_vllm: Dynamo 1.0 to 1.6 with vLLM 0.23" in good.stdout
    page = STACKS_PAGE.read_text(encoding="utf-8")
    for name in shipped_options("stack"):
        assert f"| `{name}` |" in page
        assert name == "dynamo_v0" or f"  stack={name}: Dynamo " in good.stdout
    assert good.returncode == 0
    assert "decode.max_seq_len" in good.stdout
    bad = tune(
        "action=preflight",
        "split.decode_workers=5",
        "decode.max_num_tokens=256",
        "decode.kv_cache_config.dtype=auto",
    )
    assert bad.returncode == 1
    for path in ("split", "decode.max_num_tokens", "kv_cache_config.dtype"):
        assert path in bad.stdout
    assert written(tmp_path) == set()


@pytest.mark.slow
def test_sweep_without_a_possible_point_runs_nothing(tune: Tune, tmp_path: Path) -> None:
    words = ("+sweep=batching", "sweep.space.prefill_max_num_tokens.values=[16,24]")
    done = tune(*words)
    assert done.returncode == 2
    assert "error: sweep.space.prefill_max_num_tokens" in done.stderr
    assert "at least a KV block, 32 tokens" in done.stderr
    assert written(tmp_path) == set()
    preflight = tune(*words, "action=preflight")
    assert preflight.returncode == 1
    assert "error: sweep.space.prefill_max_num_tokens" in preflight.stdout


@pytest.mark.slow
def test_broken_rule_runs_nothing(tune: Tune, tmp_path: Path) -> None:
    done = tune("split.decode_workers=5")
    assert done.returncode == 2
    assert "found" in done.stderr
    assert "expected" in done.stderr
    assert written(tmp_path) == set()


@pytest.mark.slow
def test_parse_reads_logs_from_any_folder(tune: Tune) -> None:
    done = tune("action=parse", f"logs='{PUBLISHED}'")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["loadgen_tps"] == pytest.approx(9897.52, abs=0.005)
    assert figures["ttft_s"]["p99"] == pytest.approx(4.21581796)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["load.target_qpss=14"], 2, "Did you mean load.target_qps?"),
        (["+sweep=pd_splt"], 2, "Did you mean sweep=pd_split?"),
        (["+sweeep=pd_split"], 2, "Did you mean sweep?"),
        (
            ["hardware=gb2000"],
            2,
            "hardware=gb2000: no such option. There are: b200_dgx, b300_dgx, gb200_nvl36",
        ),
        (["--multirun", "load.target_qps=1,2"], 2, "+sweep=NAME"),
        (["--multi", "load.target_qps=1,2"], 2, "+sweep=NAME"),
        (["hydra.mode=MULTIRUN", "load.target_qps=1,2"], 2, "+sweep=NAME"),
        (["load.dataset.inputs.sd_tokens=90000.0"], 2, "load.dataset.inputs"),
        (["action=status", "study.name=nothing"], 2, "no study there"),
        (["action=report"], 2, "found no study; expected study.name=NAME"),
        (["action=parse"], 2, "needs logs=DIR"),
        (["action=parse", "logs=/nowhere"], 2, "/nowhere"),
        (["study.n_trials=5"], 2, "expected +sweep=NAME"),
        (["action=compare", "compare.a=x"], 2, "compare.b"),
        (["action=compare", "compare.a=x", "compare.b=y"], 2, "x: no measured trial"),
        (["runs_dir=/dev/null/x"], 2, "/dev/null/x"),
        (["load.dataset.path=/nowhere.csv"], 2, "/nowhere.csv"),
        (["+sweep=pd_split", "search=grid", "sweep.space.target_qps.step=null"], 2, "sweep.space.target_qps"),
        (["+sweep=pd_split", "study.max_gpu_hours=1"], 3, "The budget of 1 GPU-hours"),
        (["--no-such-flag"], 2, "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_clear_error(
    tune: Tune, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    done = tune(*words)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_study_ended_by_its_budget_prints_its_best(tune: Tune, tmp_path: Path) -> None:
    budget = ("study.n_trials=8", "study.parallel=2", "study.max_gpu_hours=120")
    done = tune("+sweep=pd_split", "load.min_duration_s=120.0", "load.concatenate_permutation=false", *budget)
    assert done.returncode == 3
    assert "8 of 8 trials remain, simulated: would cost about " in done.stderr
    assert "120 at most" in done.stderr
    assert "The budget of 120 GPU-hours (study.max_gpu_hours) ends the study" in done.stderr
    assert "tokens/s/GPU" in done.stdout
    assert (tmp_path / "reports" / "pd_split-sim" / "index.html").exists()


@pytest.mark.slow
def test_help_and_cfg_work_as_in_hydra(tune: Tune, tmp_path: Path) -> None:
    text = tune("--help")
    assert text.returncode == 0
    assert "+sweep=pd_split" in text.stdout
    assert "hardware: b200_dgx, b300_dgx, gb200_nvl36, gb200_nvl72, gb300_nvl72" in text.stdout
    assert "Exit codes" in text.stdout
    job = tune("--cfg", "job", "load.target_qps=14")
    assert "target_qps: 14" in job.stdout
    assert written(tmp_path) == set()


@pytest.mark.slow
def test_config_dir_adds_sweeps_and_options(tune: Tune, tmp_path: Path) -> None:
    (tmp_path / "mine" / "sweep").mkdir(parents=True)
    (tmp_path / "mine" / "slo").mkdir()
    (tmp_path / "mine" / "sweep" / "rate.yaml").write_text(
        "question: How far does it go?\nn_trials: 3\nfill_decode: false\n"
        "space:\n  qps: {kind: ordered, path: load.target_qps, values: [8.0, 10.0, 12.0]}\n"
    )
    (tmp_path / "mine" / "slo" / "loose.yaml").write_text("ttft_p99_s: 10.0\ntpot_p99_s: null\n")
    done = tune("--config-dir", "mine", "+sweep=rate", "slo=loose", "search=grid", *SHORT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reports" / "rate-sim" / "index.html").exists()
    record = json.loads((tmp_path / "runs" / "rate-sim" / "study.json").read_text())
    assert record["command"][:2] == ["--config-dir=mine", "+sweep=rate"]
    (tmp_path / "mine" / "sweep" / "empty.yaml").write_text("question: Nothing?\nn_trials: 3\nspace: {}\n")
    empty = tune("--config-dir", "mine", "+sweep=empty")
    assert empty.returncode == 2
    assert "sweep.space" in empty.stderr


@pytest.mark.slow
def test_the_printed_command_widens_the_range_and_goes_on_with_the_trials(tune: Tune, tmp_path: Path) -> None:
    (tmp_path / "mine" / "sweep").mkdir(parents=True)
    (tmp_path / "mine" / "sweep" / "rate.yaml").write_text(
        "question: How far does it go?\nn_trials: 9\n"
        "space:\n  qps: {kind: ordered, path: load.target_qps, values: [5.0, 10.0]}\n"
    )
    words = ("--config-dir", "mine", "+sweep=rate", "search=grid", "study.baseline=false", *SHORT)
    done = tune(*words)
    assert done.returncode == 0, done.stderr
    assert (
        "ended     every point of the space that can run is on record after 2 of 9 planned trials"
        in done.stdout
    )
    widened = (
        r"load.target_qps = 10 \(highest; widen to (\S+), simulated: holds at up to \1 queries/s in every"
    )
    assert re.search(widened, done.stdout)
    command = done.stdout.split("widen  ")[1].splitlines()[1]
    wider = tune(*shlex.split(command)[3:])
    assert wider.returncode == 0, wider.stderr
    assert "2 trials on record are points of it and count, 0 are left aside" in wider.stderr
    assert "after 3 of 9 planned trials" in wider.stdout
    assert "(3 different configurations)" in tune("action=status", "study.name=rate-sim").stdout
