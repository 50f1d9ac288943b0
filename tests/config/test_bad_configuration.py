"""Test that a bad configuration is one clear error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tune.config import compose_overrides
from tune.errors import ConfigurationError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["load=csv"], "load.dataset.path: found null; this load reads its requests from a file"),
        (["load=trace"], "load.dataset.path: found null; this load reads its requests from a file"),
        (["load=csv", "load.dataset.path=/nowhere"], "load.dataset.path: /nowhere cannot be read"),
        (
            ["load=lognormal"],
            "The configuration does not validate; nothing was run.\n"
            "  load.dataset.inputs: found neither mean_tokens nor median_tokens; expected one of",
        ),
        (
            ["load=fixed", "load.dataset.inputs.range_ratio=1"],
            "load.dataset.outputs: range_ratio is 1; with range_rule=vllm it is below 1",
        ),
        (
            ["load=fixed", "load.dataset.inputs.mean_tokens=4"],
            "load.dataset.inputs.mean_tokens: no such setting. It belongs to another option of load",
        ),
    ],
)
def test_an_incomplete_load_says_what_it_needs(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        compose_overrides(overrides)


BAD = [
    (["load.target_qpss=3"], "load.target_qpss: no such setting. Did you mean load.target_qps?"),
    (["+load.target_qpss=3"], "load.target_qpss: no such setting. Did you mean load.target_qps?"),
    (["prefill.max_num_token=4096"], "Did you mean prefill.max_num_tokens?"),
    (["decode.kv_cache_config.dtyp=fp8"], "Did you mean decode.kv_cache_config.dtype?"),
    (["decode.max_batchsize=8"], "Did you mean decode.max_batch_size?"),
    (["prefill.kv_cache_config.token_per_block=8"], "Did you mean prefill.kv_cache_config.tokens_per_block?"),
    (
        ["prefill.cache_transceiver_config.transciever_runtime=x"],
        "Did you mean prefill.cache_transceiver_config.transceiver_runtime?",
    ),
    (["prefill.contex_parallel_size=2"], "Did you mean prefill.context_parallel_size?"),
    (["load.accurac=true"], "Did you mean load.accuracy?"),
    (["model.expert_per_token=2"], "Did you mean model.experts_per_token?"),
    (["cluster.calibration.prefil_steps=x"], "Did you mean cluster.calibration.prefill_steps?"),
    (["stack=dynamo_vllm", "prefill=vllm", "prefill.max_num_seq=4"], "Did you mean prefill.max_num_seqs?"),
    (["prefill.max_num_seqs=4"], "prefill.max_num_seqs: no such setting. It belongs to another option"),
    (["model.experts=8"], "If it was left out, +model.experts=VALUE adds it."),
    (["hardwre=gb200_nvl72"], "hardwre: no such setting. Did you mean hardware?"),
    (["bogus=1"], "bogus: no such setting. python -m tune --cfg job lists every key."),
    (
        ["hardware=gb2000"],
        "no such option. There are: b200_dgx, b300_dgx, gb200_nvl36, gb200_nvl72, ",
    ),
    (["model=mine"], "One of your own is DIR/model/mine.yaml with --config-dir DIR."),
    (["+sweep=pd_splt"], "Did you mean sweep=pd_split?"),
    (["+sweeep=pd_split"], "sweeep: no such setting. Did you mean sweep?"),
    (["sweep=pd_split"], "expected +sweep=NAME"),
    (["++sweep=pd_split"], "++sweep"),
    (
        ["+sweep.question=hm"],
        "expected +sweep=NAME with one of batching, concurrency, cuda_graphs, disaggregation, everything",
    ),
    (["load.target_qps=fast"], "load.target_qps: found 'fast'; expected a valid number"),
    (["load.target_qps=-1"], "load.target_qps: found -1; expected greater than 0"),
    (["load.target_qps=0"], "load.target_qps: found 0; expected greater than 0"),
    (["load.target_qps=nan"], "load.target_qps"),
    (["load.target_qps=inf"], "load.target_qps"),
    (["load=fixed", "load.target_qps=null"], "target_qps is null, but mode=fixed sends at a rate"),
    (
        ["load.target_qps=14,15"],
        "load.target_qps=14,15: found several values; expected one. Write load.target_qps=[14,15] for",
    ),
    (["load.target_qps=choice(14,15)"], "Write load.target_qps=[14,15] for a list"),
    (["load.target_qps=range(1,3)"], "found several values"),
    (["load.target_qps=glob(*)"], "found several values"),
    (["load.target_qps=shuffle(1,3)"], "found several values"),
    (["load.target_qps"], "expected load.target_qps=VALUE"),
    (["logs=a b;c"], "found ';'; expected text with special characters in quotes: \"logs='a b;c'\""),
    (["logs=f(x)"], "found f(...), which is no function"),
    (["logs='x"], "found ' that is not closed"),
    (["logs=a=b"], "found '=' where the value ends"),
    (["split=[a"], "found [ that is not closed; expected ] after it"),
    (["a b=1"], "found 'a b' before =; expected a setting"),
    (["n_trials=10"], "n_trials: no such setting. Did you mean study.n_trials or sweep.n_trials?"),
    (["max_num_tokens=1"], "Did you mean prefill.max_num_tokens or decode.max_num_tokens or "),
    (["tpot_p99_s=1"], "Did you mean slo.tpot_p99_s?"),
    (["cluster.output=7"], "found 7; expected a valid string. Put it in quotes."),
    (["logs=${x.y}"], "logs: Interpolation key 'x.y' not found"),
    (["load.seed=mlprf"], "load.seed"),
    (["load.dataset.path=/nowhere.csv"], "load.dataset.path: /nowhere.csv cannot be read"),
    (["study.name=../outside"], "study.name: found '../outside'"),
    (["cluster.calibration=null"], "cluster=sim needs its calibration"),
    (["+sweep=pd_split", "sweep.space.prefill_workers.path=split.decode_workers"], "already decides"),
    (["+sweep=pd_split", "sweep.space.prefill_workers.path=load.target_qps"], "two dimensions set the same"),
    (["load.mode=closed"], "load.mode: found 'closed'; expected 'fixed'"),
    (["decode.max_batch_size=1.5"], "decode.max_batch_size: found 1.5; expected a valid integer"),
    (["decode.max_batch_size='512'"], "decode.max_batch_size: found '512'; expected a valid integer"),
    (["decode.disable_overlap_scheduler=1"], "decode.disable_overlap_scheduler: found 1"),
    (["decode.cuda_graph_config.batch_sizes=32"], "decode.cuda_graph_config.batch_sizes: found 32"),
    (["decode.kv_cache_config.free_gpu_memory_fraction=1.2"], "expected less than or equal to 1"),
    (["prefill=null"], "prefill=null: expected the name of an option"),
    (["split=[null]"], "split=[null]: expected the name of an option"),
    (["+sweep=[{}]"], "+sweep=[{}]: expected the name of an option"),
    (["split=${json:%7B%22%2C%22%3A1%7D}"], "%22%3A1%7D}: expected the name of an option"),
    (["split.prefill_workers=-1"], "split.prefill_workers: found -1"),
    (["slo.ttft_p99_s=0"], "slo.ttft_p99_s: found 0; expected greater than 0"),
    (["study.parallel=0"], "study.parallel: found 0"),
    (["study.trials_per_job=0"], "study.trials_per_job: found 0"),
    (["study.once=maybe"], "study.once: found 'maybe'"),
    (["study.seed=-3"], "study.seed: found -3"),
    (["cluster.time_limit=soon"], "cluster.time_limit: found 'soon'"),
    (["cluster.kind=moon"], "cluster.kind: found 'moon'; expected 'sim', 'local' or 'slurm'"),
    (["cluster=moon"], "cluster=moon: no such option. There are: local, sim, slurm"),
    (["action=rn"], "action: found 'rn'; expected 'run'"),
    (["search=anneal"], "There are: default, gp, grid, random, surrogate, tpe"),
    (["~load"], "load: not set; expected a value"),
    (["+sweep=pd_split", "~sweep.space.target_qps", "~sweep.space.nothing"], "nothing"),
    (["+sweep=pd_split", "sweep.n_trials=0"], "sweep.n_trials: found 0"),
    (
        ["+sweep=pd_split", "sweep.space.prefill_workers.low=18"],
        "the range is empty: low 18 is above high 17",
    ),
    (["+sweep=pd_split", "sweep.space.prefill_workers.hgh=18"], "hgh"),
    (["+sweep=pd_split", "sweep.space.target_qps.kind=double"], "sweep.space.target_qps"),
    (["+sweep=pd_split", "sweep.space.decode_max_batch_size.values=[]"], "at least 1 item"),
    (["+sweep=pd_split", "sweep.space.decode_max_batch_size.values=[64,64]"], "each value may stand once"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "message"), BAD, ids=[" ".join(o) for o, _ in BAD])
def test_bad_configuration_is_one_clear_error(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        compose_overrides(overrides)
    assert message in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert "multirun" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_invalid_values_are_reported_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        compose_overrides(["load.target_qps=fast", "decode.max_batch_size=x", "+study.nam=1"])
    for path in ("load.target_qps", "decode.max_batch_size", "study.nam"):
        assert f"  {path}: " in str(caught.value)


BROKEN_FILES = {
    "open_list": ("ttft_p99_s: 10.0\ntpot: [1\n", "slo/open_list.yaml, line 3: expected ',' or ']'"),
    "twice": ("ttft_p99_s: 1\nttft_p99_s: 2\n", "slo/twice.yaml, line 2: found duplicate key ttft_p99_s"),
    "tab": ("a:\tb: 1\n", "slo/tab.yaml, line 1: found a tab; expected blanks"),
    "latin": ("# Gr\xfc\xdfe\nttft_p99_s: 1\n", "slo/latin.yaml, line 1: found bytes that are not UTF-8"),
    "nowhere": (
        "\nttft_p99_s: ${no.where}\n",
        "slo.ttft_p99_s (mine/slo/nowhere.yaml, line 2): Interpolation",
    ),
    "unset": (
        "ttft_p99_s: ${oc.env:NO_SUCH}\n",
        'slo.ttft_p99_s (mine/slo/unset.yaml, line 1): "Environment',
    ),
    "open": ("ttft_p99_s: ${a.b\n", "An interpolation (mine/slo/open.yaml, line 1)"),
    "listed": ("- a\n- b\n", "slo/listed.yaml: found a list; expected settings"),
    "base": ("defaults:\n  - nosuch\n", "slo/nosuch: no such option; slo/base names it"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN_FILES)
def test_broken_file_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine" / "slo"
    folder.mkdir(parents=True)
    for other, (text, _) in BROKEN_FILES.items():
        (folder / f"{other}.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError) as caught:
        compose_overrides([f"slo={name}"], ["mine"])
    assert BROKEN_FILES[name][1] in str(caught.value)


@pytest.mark.slow
def test_time_without_quotes_in_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    file = tmp_path / "cluster" / "mine.yaml"
    file.write_text("defaults: [slurm, _self_]\ntime_limit: 2:00:00\n")
    with pytest.raises(ConfigurationError, match=r"line 2: time_limit: found 2:00:00 .* the number 7200"):
        compose_overrides(["cluster=mine"], [str(tmp_path)])
    file.write_text("defaults: [slurm, _self_]\ntime_limit: '2:00:00'  # a day: 1-0:00\n")
    assert compose_overrides(["cluster=mine"], [str(tmp_path)]).settings.cluster.time_limit == "2:00:00"


def test_missing_folder_of_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere is no folder"):
        compose_overrides([], [str(tmp_path / "nowhere")])
