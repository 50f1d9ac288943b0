"""Test aggregated deployments as values: their trials, the points of a sweep, and what is refused."""

from __future__ import annotations

import json

import pytest
from support.composed import changed, composed

from tune.config import compose_overrides, trial_overrides
from tune.engines.check import check
from tune.errors import ConfigurationError
from tune.spec.bind import bind_point, locate_point
from tune.spec.findings import only_errors
from tune.spec.kind import kind_of
from tune.spec.settings import Settings
from tune.spec.space import ChoiceDimension, GraphFamilyDimension, IntDimension, OrderedDimension, Sweep
from tune.spec.split import place_workers
from tune.spec.trial import TrialSpec

SWEEP = Sweep(
    question="Does disaggregation win?",
    n_trials=4,
    fill_decode=True,
    space={
        "aggregated_workers": ChoiceDimension(kind="choice", path="split.aggregated_workers", values=(0, 1)),
        "prefill_workers": IntDimension(kind="int", path="split.prefill_workers", low=1, high=17),
        "chunk": OrderedDimension(kind="ordered", path="prefill.max_num_tokens", values=(2048, 8192)),
        "step": OrderedDimension(kind="ordered", path="aggregated.max_num_tokens", values=(512, 2048)),
        "graphs": GraphFamilyDimension(kind="graph_family", path="decode", values=("powers_of_two", "none")),
    },
)
BOTH = composed("aggregated=chunked")
"""Settings of all three pools, as a sweep over both kinds has them."""


def base() -> TrialSpec:
    """Return the configuration that the sweep varies."""
    return BOTH.model_copy(update={"sweep": SWEEP}).trial_spec


def point(**changes: object) -> dict[str, object]:
    whole = {"aggregated_workers": 0, "prefill_workers": 10, "chunk": 2048, "step": 512, "graphs": "none"}
    return whole | changes


def test_the_option_gives_workers_that_prefill_and_decode() -> None:
    spec = composed("split=aggregated").trial_spec
    (pool,) = spec.pools
    assert (pool.role, pool.workers, spec.split.label, kind_of(spec)) == ("aggregated", 18, "18A", "18A TP4")
    assert pool.engine == spec.prefill == spec.decode == spec.aggregated
    assert list(spec.environments) == ["aggregated.env", "stack.env"]
    workers = place_workers(spec.hardware, spec.prefill, spec.decode, spec.split)
    assert workers is not None
    assert [(one.role, one.index, one.nodes) for one in workers] == [
        ("aggregated", index, (index,)) for index in range(18)
    ]
    assert not only_errors(check(spec))


def test_a_record_holds_the_settings_of_its_own_pools_alone() -> None:
    spec = composed("split=aggregated").trial_spec
    record = json.loads(spec.model_dump_json())
    assert not {"prefill", "decode"} & record.keys()
    assert record["split"]["aggregated_workers"] == 18
    again = TrialSpec.model_validate_json(json.dumps(record))
    assert (again, again.trial_id) == (spec, spec.trial_id)
    disaggregated = json.loads(BOTH.trial_spec.model_dump_json())
    assert "aggregated" not in disaggregated
    assert "aggregated_workers" not in disaggregated["split"]
    assert BOTH.trial_spec.trial_id == composed().trial_spec.trial_id


def test_settings_of_pools_without_workers_are_no_part_of_a_trial() -> None:
    alone = composed("split=aggregated").trial_spec
    beside = composed("split=aggregated", "prefill=chunked", "decode=continuous").trial_spec
    assert beside.trial_id == alone.trial_id
    assert beside == alone


@pytest.mark.parametrize(
    "words",
    [
        ("split=aggregated",),
        ("split=aggregated", "split.aggregated_workers=9", "aggregated.tensor_parallel_size=8"),
        ("split=aggregated", "stack=dynamo_vllm", "aggregated=vllm", "+aggregated.env.A=b"),
        ("split.frontends=2",),
    ],
)
def test_the_overrides_of_a_trial_compose_it_again(words: tuple[str, ...]) -> None:
    settings = compose_overrides(words).settings
    again = compose_overrides(trial_overrides(settings.trial_spec, settings)).settings.trial_spec
    assert again == settings.trial_spec


def test_points_of_one_sweep_are_of_both_kinds() -> None:
    first = bind_point(base(), SWEEP, point())
    assert (first.split.label, first.aggregated) == ("10P8D", None)
    assert first.decode.graph_batch_sizes == ()
    second = bind_point(base(), SWEEP, point(aggregated_workers=1, step=2048))
    assert second.split.label == "18A", "as many as fit"
    assert second.prefill.token_budget == 2048
    assert second.prefill is second.decode is second.aggregated
    assert second.decode.graph_batch_sizes != (), "the family is that of the decode pool"


def test_points_that_differ_in_idle_pools_are_one_trial() -> None:
    ids = {
        bind_point(base(), SWEEP, point(aggregated_workers=1, prefill_workers=workers, chunk=chunk)).trial_id
        for workers, chunk in ((1, 2048), (17, 2048), (17, 8192))
    }
    assert len(ids) == 1
    assert len({bind_point(base(), SWEEP, point(step=step)).trial_id for step in (512, 2048)}) == 1


@pytest.mark.parametrize("changes", [{}, {"aggregated_workers": 1}, {"aggregated_workers": 1, "step": 2048}])
def test_a_trial_is_located_in_the_sweep(changes: dict[str, object]) -> None:
    spec = bind_point(base(), SWEEP, point(**changes))
    located = locate_point(spec, SWEEP)
    assert located is not None
    assert bind_point(base(), SWEEP, located) == spec


def test_the_disaggregated_points_of_an_aggregated_base_begin_with_its_settings() -> None:
    aggregated = composed("split=aggregated").model_copy(update={"sweep": SWEEP}).trial_spec
    first = bind_point(aggregated, SWEEP, point(chunk=8192))
    assert first.split.label == "10P8D"
    assert (first.prefill.token_budget, first.decode.token_budget) == (8192, 1024)


def test_aggregated_workers_without_settings_are_refused() -> None:
    settings = changed(composed(), "split.aggregated_workers=18")
    with pytest.raises(ConfigurationError, match="found no settings for 18 aggregated workers; expected"):
        _ = settings.trial_spec


def test_settings_of_another_engine_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="Choose an option of aggregated for this engine"):
        compose_overrides(("split=aggregated", "stack=dynamo_vllm"))


def aggregated(*changes: str) -> Settings:
    return changed(composed("split=aggregated"), *changes)


@pytest.mark.parametrize(
    ("change", "path", "found"),
    [
        ("split.aggregated_workers=19", "split", "19A: 19 aggregated x 4 = 76 GPUs"),
        ("aggregated.tensor_parallel_size=3", "aggregated.tensor_parallel_size", "3 GPUs a worker"),
        ("aggregated.max_seq_len=9000", "aggregated.max_seq_len", "9000"),
        ("aggregated.max_num_tokens=16", "aggregated.max_num_tokens", "16"),
        ("aggregated.enable_chunked_prefill=false", "aggregated.max_num_tokens", "1024, with aggregated"),
        (
            "aggregated.kv_cache_config.free_gpu_memory_fraction=0.001",
            "aggregated.kv_cache_config.free_gpu_memory_fraction",
            "a KV cache of",
        ),
    ],
)
def test_what_breaks_a_rule(change: str, path: str, found: str) -> None:
    errors = only_errors(check(aggregated(change).trial_spec))
    assert (path, True) in {(error.path, found in error.found) for error in errors}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ("split.aggregated_workers=17", "split"),
        ("aggregated.cache_transceiver_config={backend: DEFAULT}", "aggregated.cache_transceiver_config"),
        ("aggregated.max_num_tokens=64", "aggregated.max_num_tokens"),
        ("aggregated.cuda_graph_config.batch_sizes=[1,2]", "aggregated.cuda_graph_config.batch_sizes"),
    ],
)
def test_what_costs_something(change: str, path: str) -> None:
    quiet = {finding.path for finding in check(aggregated().trial_spec)}
    found = check(aggregated(change).trial_spec)
    assert not only_errors(found)
    new = {finding.path for finding in found} - (quiet - {"aggregated.cuda_graph_config.batch_sizes"})
    assert path in new


@pytest.mark.parametrize(("tokens", "named"), [(128, True), (160, False)])
def test_a_full_batch_of_answers_leaves_tokens_for_prompts(tokens: int, named: bool) -> None:
    findings = check(aggregated(f"aggregated.max_num_tokens={tokens}").trial_spec)
    assert any("leaves none for prompts" in finding.why for finding in findings) == named


def test_a_pool_that_sends_its_caches_needs_a_transceiver() -> None:
    settings = changed(composed(), "prefill.cache_transceiver_config=null")
    (error,) = only_errors(check(settings.trial_spec))
    assert error.path == "prefill.cache_transceiver_config"
