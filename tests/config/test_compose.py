"""The composed configuration: the reference, every shipped file, and what must not pass silently."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tune.config import compose_overrides, trial_overrides
from tune.engines.check import check
from tune.errors import ConfigurationError
from tune.spec.bind import bind_point, locate_point
from tune.spec.cluster_rules import EXAMPLE_CLUSTER, check_cluster
from tune.spec.findings import only_errors
from tune.spec.settings import Settings
from tune.spec.space import Dimension, FloatDimension, IntDimension, Value
from tune.spec.trial import TrialSpec

ROOT = Path(__file__).parents[2]
GROUPS = ("model", "hardware", "split", "prefill", "decode", "load", "slo", "stack", "cluster", "search")
OPTIONS = [
    f"{group}={path.stem}" for group in GROUPS for path in sorted((ROOT / "conf" / group).glob("*.yaml"))
]
LENGTHS_OF_TESTS = str(ROOT / "tests" / "data" / "dataset" / "trace.csv")
FILLED_IN = {
    "load=lognormal": [
        *("load.dataset.inputs.median_tokens=1200", "load.dataset.inputs.p95_tokens=6000"),
        *("load.dataset.outputs.mean_tokens=300", "load.dataset.outputs.sd_tokens=250"),
    ],
    "load=csv": [f"load.dataset.path={LENGTHS_OF_TESTS}"],
    "load=trace": [f"load.dataset.path={LENGTHS_OF_TESTS}"],
    "stack=dynamo_vllm": ["prefill=vllm", "decode=vllm"],
    "prefill=vllm": ["stack=dynamo_vllm", "decode=vllm"],
    "prefill=vllm_one_gpu": ["stack=dynamo_vllm", "decode=vllm_one_gpu"],
    "decode=vllm": ["stack=dynamo_vllm", "prefill=vllm"],
    "decode=vllm_one_gpu": ["stack=dynamo_vllm", "prefill=vllm_one_gpu"],
}
"""What an option needs beside its name."""
SWEEPS = [path.stem for path in sorted((ROOT / "sweeps").glob("*.yaml"))]


def test_default_is_the_published_configuration() -> None:
    composed = compose_overrides([]).settings
    assert (composed.model.name, composed.model.layers) == ("llama3.1-405b-fp4", 126)
    assert (composed.hardware.nodes, composed.hardware.gpus_per_node, composed.hardware.gpus) == (18, 4, 72)
    assert composed.split.label == "14P4D"
    assert composed.split.disaggregation_strategy == "prefill_first"
    assert (composed.prefill.tensor_parallel_size, composed.decode.tensor_parallel_size) == (4, 4)
    assert composed.load.target_qps == 15.75
    assert (composed.slo.ttft_p99_s, composed.slo.tpot_p99_s) == (4.5, 0.080)
    assert composed.load.min_duration_s == 600
    assert composed.load.dataset.samples == 8313
    assert (composed.load.request_timeout_s, composed.load.response_timeout_s) == (7200, 7200)
    assert composed.load.expected_queries == 16626, "two passes over the dataset, as the published run"
    assert composed.stack.name == "dynamo_v0"
    assert composed.cluster.kind == "sim"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "parallel"),
    [
        ([], 16),
        (["+sweep=pd_split", "search=random"], 16),
        (["+sweep=pd_split", "search=grid"], 16),
        (["+sweep=pd_split"], 3),
        (["+sweep=pd_split", "search=gp"], 3),
        (["+sweep=pd_split", "load.mode=capacity"], 1),
        (["+sweep=pd_split", "load.mode=capacity", "search=tpe"], 1),
        (["cluster=local"], 1),
        (["cluster=slurm", "+sweep=pd_split", "search=random"], 1),
    ],
)
def test_parallel_trials_suit_backend_and_search_unless_set(words: list[str], parallel: int) -> None:
    assert compose_overrides(words).settings.parallel == parallel
    assert compose_overrides([*words, "study.parallel=5"]).settings.parallel == 5


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_shipped_option_composes(option: str) -> None:
    assert compose_overrides([option, *FILLED_IN.get(option, ())]).settings.trial_spec.trial_id


@pytest.mark.slow
def test_every_load_is_composed_again_from_the_overrides_of_its_trial(tmp_path: Path) -> None:
    lengths, trace = tmp_path / "lengths.csv", tmp_path / "my trace.jsonl"
    lengths.write_text("100,10\n300,20\n")
    trace.write_text(
        "".join(
            f'{{"timestamp": {t}, "input_length": 9, "output_length": {5 + t}}}\n' for t in (0, 500, 2000)
        )
    )
    loads = {
        "fixed": ["load.dataset.inputs.tokens=8192", "load.dataset.inputs.range_ratio=0.2"],
        "lognormal": FILLED_IN["load=lognormal"],
        "csv": [f"load.dataset.path={lengths}"],
        "trace": [f"load.dataset.path='{trace}'"],
    }
    found = {}
    for name, overrides in loads.items():
        composed = compose_overrides([f"load={name}", *overrides]).settings
        spec = composed.trial_spec
        assert compose_overrides(trial_overrides(spec, composed)).settings.trial_spec == spec
        dataset = spec.load.dataset
        longest = (dataset.longest_prompt_tokens, dataset.longest_answer_tokens)
        found[name] = (dataset.name, dataset.samples, *longest, spec.load.target_qps)
    assert found == {
        "fixed": ("fixed", 1000, 9831, 1229, 10.0),
        "lognormal": ("lognormal", 2000, 16384, 2048, 10.0),
        "csv": ("lengths", 2, 300, 20, 10.0),
        "trace": ("my trace", 3, 9, 2005, 1.0),
    }


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


@pytest.mark.slow
@pytest.mark.parametrize("sweep", SWEEPS)
def test_shipped_sweep_composes_and_binds_the_baseline(sweep: str) -> None:
    composition = compose_overrides([f"+sweep={sweep}"])
    composed = composition.settings
    assert composition.study_name == f"{sweep}-sim"
    assert composed.sweep is not None
    assert composed.sweep.question.endswith("?")
    point = locate_point(composed.trial_spec, composed.sweep)
    if sweep != "target_qps":
        assert point is not None
        assert bind_point(composed.trial_spec, composed.sweep, point) == composed.trial_spec


@pytest.mark.slow
@pytest.mark.parametrize("sweep", SWEEPS)
def test_most_of_a_shipped_space_can_run(sweep: str) -> None:
    composed = compose_overrides([f"+sweep={sweep}"]).settings
    assert composed.sweep is not None
    draw, runnable = random.Random(1), 0
    for _ in range(300):
        point = {name: _drawn(dimension, draw) for name, dimension in composed.sweep.space.items()}
        runnable += not only_errors(check(bind_point(composed.trial_spec, composed.sweep, point)))
    assert runnable >= 150


def _drawn(dimension: Dimension, draw: random.Random) -> Value:
    if isinstance(dimension, IntDimension):
        return draw.randrange(dimension.low, dimension.high + 1, dimension.step)
    if isinstance(dimension, FloatDimension):
        return draw.uniform(dimension.low, dimension.high)
    return draw.choice(dimension.values)


@pytest.mark.slow
@pytest.mark.parametrize("sweep", SWEEPS)
def test_shipped_sweep_states_its_budget_and_is_listed(sweep: str) -> None:
    budget = re.compile(
        r"^# Budget: (\d+) trials x (\d+) GPUs x ([\d.]+) h = ([\d,]+) GPU-hours, ", re.MULTILINE
    )
    found = budget.search((ROOT / "sweeps" / f"{sweep}.yaml").read_text(encoding="utf-8"))
    assert found
    trials, gpus, hours, total = (float(text.replace(",", "")) for text in found.groups())
    composed = compose_overrides([f"+sweep={sweep}"]).settings
    assert composed.sweep is not None
    assert (trials, gpus) == (composed.sweep.n_trials, composed.hardware.gpus)
    assert trials * gpus * hours == pytest.approx(total, rel=0.01)
    assert f"| `{sweep}` |" in (ROOT / "README.md").read_text(encoding="utf-8")
    row = f"| `{sweep}` | {trials:.0f} | {total:,.0f} |"
    assert row in (ROOT / "docs" / "how-to" / "sweeps.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "rate_qps", "split"),
    [
        ((), 15.75, "14P4D"),
        (("hardware=gb200_nvl36",), 7.875, "7P2D"),
        (("hardware=gb200_nvl36", "split=1p1d", "load.target_qps=15.75"), 15.75, "1P1D"),
        (("hardware.nodes=1", "hardware.gpus_per_node=8", "split=1p1d"), 1.75, "1P1D"),
    ],
)
def test_rate_suits_the_size_of_the_rack(words: tuple[str, ...], rate_qps: float, split: str) -> None:
    settings = compose_overrides(words).settings
    assert (settings.load.target_qps, settings.split.label) == (rate_qps, split)
    again = compose_overrides(trial_overrides(settings.trial_spec, settings)).settings
    assert again.trial_spec == settings.trial_spec, "also a rate that is the default of another size"


@pytest.mark.slow
def test_own_cluster_facts_replace_the_reference() -> None:
    facts = compose_overrides(["cluster=slurm"]).settings.cluster
    findings = check_cluster(facts, "/home/ada", placeholders="warning")
    example = {f"cluster.{name}" for name in EXAMPLE_CLUSTER} | {"cluster.model_path"}
    assert {(finding.path, finding.severity) for finding in findings} == {
        (name, "warning") for name in example
    }
    named = compose_overrides(["cluster=slurm", "cluster/facts@cluster=gb200_rack"]).settings.cluster
    assert named == compose_overrides(["cluster=slurm"]).settings.cluster


@pytest.mark.slow
def test_command_line_overrides_the_search_of_a_sweep() -> None:
    assert compose_overrides(["+sweep=target_qps"]).settings.search.name == "grid"
    assert compose_overrides(["+sweep=target_qps", "search=random"]).settings.search.name == "random"


BAD = [
    (["load.target_qpss=3"], "load.target_qpss: no such setting. Did you mean load.target_qps?"),
    (["+load.target_qpss=3"], "load.target_qpss: no such setting. Did you mean load.target_qps?"),
    (["prefill.max_num_token=4096"], "Did you mean prefill.max_num_tokens?"),
    (["decode.kv_cache_config.dtyp=fp8"], "Did you mean decode.kv_cache_config.dtype?"),
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
        "expected +sweep=NAME with one of batching, cuda_graphs, everything, parallelism, pd_split, target",
    ),
    (["load.target_qps=fast"], "load.target_qps: found 'fast'; expected a valid number"),
    (["load.target_qps=-1"], "load.target_qps: found -1; expected greater than 0"),
    (["load.target_qps=0"], "load.target_qps: found 0; expected greater than 0"),
    (["load.target_qps=nan"], "load.target_qps"),
    (["load.target_qps=inf"], "load.target_qps"),
    (["load=fixed", "load.target_qps=null"], "load.target_qps: found None; expected a valid number"),
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
    (["n_trials=10"], "n_trials: no such setting. Did you mean study.n_trials?"),
    (["max_num_tokens=1"], "Did you mean prefill.max_num_tokens or decode.max_num_tokens?"),
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


CONFIGURATIONS = [
    [],
    ["split.prefill_workers=13", "split.decode_workers=5", "load.target_qps=14"],
    ["hardware=gb300_nvl72", "model=llama3_1_70b_fp4", "stack=dynamo_v1", "slo=server"],
    ["decode.cuda_graph_config=null", "prefill.kv_cache_config.enable_block_reuse=true"],
    ["prefill.cuda_graph_config={enable_padding:true,batch_sizes:[1,2,4]}"],
    ["+decode.extra.moe_config={backend: CUTLASS, sizes: [1, 2.5, null, true, '1'], deep: {a: {}}}"],
    ["cluster=slurm", "cluster.partition='a, b'", "cluster.extra_sbatch=['--comment=\"x y\"']"],
    ["cluster.calibration.prefill_scale=0.123456789012345"],
    ["decode.scheduler_config={capacity_scheduler_policy: MAX_UTILIZATION}"],
    ["decode.kv_cache_config.tokens_per_block=64", "+decode.kv_cache_config.host_cache_size=0"],
    [
        "decode.cuda_graph_config={batch_sizes: null, max_batch_size: 96}",
        "+decode.cuda_graph_config.mode=decode",
    ],
    ["decode.cache_transceiver_config={max_tokens_in_buffer: null, transceiver_runtime: PYTHON}"],
    ["prefill.context_parallel_size=2", "+prefill.extra.cp_config={cp_type: HELIX}", "decode.backend=null"],
    ["load.mode=capacity", "load.rate_range_qps=[6.0,25.5]"],
]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", CONFIGURATIONS, ids=[" ".join(o) or "default" for o in CONFIGURATIONS])
def test_overrides_of_a_trial_compose_to_the_same_trial(overrides: list[str]) -> None:
    composed = compose_overrides(overrides).settings
    again = compose_overrides(trial_overrides(composed.trial_spec, composed)).settings
    assert again.trial_spec == composed.trial_spec
    assert again.trial_spec.trial_id == composed.trial_spec.trial_id
    assert again.cluster == composed.cluster


@pytest.mark.slow
def test_capacity_search_keeps_to_the_rates_of_the_sweep() -> None:
    def composed(*overrides: str) -> Settings:
        return compose_overrides(["+sweep=pd_split", "load.mode=capacity", *overrides]).settings

    found = composed()
    assert found.load.rate_range_qps == (6.0, 26.0)
    assert found.sweep
    assert "target_qps" not in found.sweep.space
    assert composed("load.rate_range_qps=[10,12]").load.rate_range_qps == (10.0, 12.0)
    assert compose_overrides(["+sweep=pd_split"]).settings.load.rate_range_qps is None
    with pytest.raises(ConfigurationError, match=r"load.rate_range_qps.*expected \[lowest, highest\]"):
        composed("load.rate_range_qps=[12,10]")


LIVE = ("cluster=local", "stack=dynamo_v1_mocker")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "mode"),
    [
        ((), "fixed"),
        (("+sweep=pd_split",), "fixed"),
        (LIVE, "fixed"),
        (("cluster=slurm",), "fixed"),
        ((*LIVE, "+sweep=pd_split"), "capacity"),
        (("cluster=slurm", "+sweep=pd_split"), "capacity"),
        (("cluster=slurm", "+sweep=pd_split", "load.mode=fixed"), "fixed"),
        (("cluster=slurm", "+sweep=target_qps"), "fixed"),
        (("+sweep=pd_split", "load.mode=capacity"), "capacity"),
    ],
)
def test_real_deployments_search_for_their_capacity(overrides: tuple[str, ...], mode: str) -> None:
    settings = compose_overrides(overrides).settings
    assert settings.load.mode == mode
    if settings.sweep and mode == "capacity":
        assert (settings.load.rate_range_qps, "target_qps" in settings.sweep.space) == ((6.0, 26.0), False)


@pytest.mark.slow
def test_content_of_a_dataset_is_part_of_the_trial(tmp_path: Path) -> None:
    lengths = tmp_path / "my lengths.csv"
    lengths.write_text("input_tokens,output_tokens\n" + "100,10\n" * 8313)
    override = f"load.dataset.path='{lengths}'"
    first = compose_overrides([override]).settings
    again = compose_overrides(trial_overrides(first.trial_spec, first)).settings.trial_spec
    assert again.trial_id == first.trial_spec.trial_id
    overrides = trial_overrides(first.trial_spec, first)
    lengths.write_text("input_tokens,output_tokens\n" + "200,10\n" * 8313)
    assert compose_overrides([override]).settings.trial_spec.trial_id != again.trial_id
    with pytest.raises(ConfigurationError, match=r"load.dataset.sha256: .* is not the one that was measured"):
        compose_overrides(overrides)


HARD_TEXTS = [
    "${x}", "${oc.env:HOME}", "$(date)", "'", '"', "\\'", "a\\", "a\\b", "\\${x}", "\\\\${x}\\", "???",
    "null", "1e3", "True", "é", "a,b", "[a]", "{a:b}", "=", " ", "#", "~x", "+y", "/a b:/c",
]  # fmt: skip


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), min_size=1, max_size=20)
    ),
    number=st.floats(1e-3, 1e6),
)
@example(texts=HARD_TEXTS, number=1 / 3)
def test_any_text_and_number_survive_the_override_grammar(texts: list[str], number: float) -> None:
    composed = compose_overrides([]).settings
    cluster = composed.cluster.model_copy(update={"container_mounts": tuple(texts)})
    load = composed.load.model_copy(update={"target_qps": number})
    spec = composed.trial_spec.model_copy(update={"load": load})
    overrides = trial_overrides(spec, composed.model_copy(update={"cluster": cluster}))
    again = compose_overrides(overrides).settings
    assert again.cluster.container_mounts == tuple(texts)
    assert again.trial_spec == spec


ODD_KEYS = (
    "", " ", "1", "1e3", "=", "True", "a b", "a-b", "a.b", "a/b", "a:b", "a,b", "null", "x",
    "{x}", "${y}", "é",
)  # fmt: skip
ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
KEYS = st.sampled_from(ODD_KEYS) | ANY_TEXT
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1e3, 1e3) | KEYS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(extra=st.dictionaries(KEYS, VALUES, max_size=3))
@example(extra={"a.b": 1, "": {"é": "${x}"}})
def test_any_key_of_a_free_mapping_survives_recorded_overrides(extra: dict[str, object]) -> None:
    composed = compose_overrides([]).settings
    plain = composed.trial_spec.model_dump(mode="json")
    plain["prefill"]["extra"] = extra
    plain["decode"]["kv_cache_config"] |= extra
    spec = TrialSpec.model_validate_json(json.dumps(plain))
    again = compose_overrides(trial_overrides(spec, composed)).settings.trial_spec
    assert again.prefill.extra == spec.prefill.extra
    assert again.decode.kv_cache_config == spec.decode.kv_cache_config
    assert again.trial_id == spec.trial_id


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


def test_reference_breaks_no_rule() -> None:
    assert not [f for f in check(compose_overrides([]).settings.trial_spec) if f.severity == "error"]
