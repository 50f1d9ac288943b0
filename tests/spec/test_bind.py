"""Bind a point of a sweep to a configuration, and locate the point of a configuration."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.composed import composed

from tune.engines.trtllm.trtllm_groups import CudaGraphConfig
from tune.errors import ConfigurationError
from tune.spec.bind import bind_point, contains, locate_point, with_graph_family
from tune.spec.space import (
    ChoiceDimension,
    FloatDimension,
    GraphFamilyDimension,
    IntDimension,
    OrderedDimension,
    Sweep,
)
from tune.spec.trial import TrialSpec

PD_SPLIT = composed("+sweep=pd_split")
PARALLELISM = composed("+sweep=parallelism")
BASE = PD_SPLIT.trial_spec
DECODE = BASE.decode

points = st.fixed_dictionaries(
    {
        "prefill_workers": st.integers(1, 17),
        "prefill_max_num_tokens": st.sampled_from([1024, 2048, 4096, 8192, 16384]),
        "decode_max_batch_size": st.sampled_from([64, 96, 128, 192, 256, 384, 512]),
        "decode_cuda_graphs": st.sampled_from(["listed", "powers_of_two", "steps_of_32", "none"]),
        "target_qps": st.integers(0, 400).map(lambda k: round(6 + 0.05 * k, 12)),
    }
)


@given(points)
def test_bound_point_is_located_again(point: dict[str, object]) -> None:
    assert PD_SPLIT.sweep is not None
    spec = bind_point(BASE, PD_SPLIT.sweep, point)
    found = locate_point(spec, PD_SPLIT.sweep)
    assert found is not None
    assert bind_point(spec, PD_SPLIT.sweep, found) == spec
    same = {name: value for name, value in point.items() if name != "decode_cuda_graphs"}
    assert same.items() <= found.items()


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("split.frontends", (1, 2, 4)),
        ("split.frontend_choice", ("round_robin", "fewest_input_tokens")),
        ("decode.context_parallel_size", (None, 2)),
    ],
)
def test_settings_that_records_leave_out_are_swept(path: str, values: tuple[Any, ...]) -> None:
    sweep = Sweep(
        question="?", n_trials=1, space={"x": ChoiceDimension(kind="choice", path=path, values=values)}
    )
    assert locate_point(BASE, sweep) == {"x": values[0]}, "the baseline is a point"
    bound = [bind_point(BASE, sweep, {"x": value}) for value in values]
    assert [locate_point(spec, sweep) for spec in bound] == [{"x": value} for value in values]
    assert len({spec.trial_id for spec in bound}) == len(values)


@pytest.mark.parametrize("role", ["prefill", "decode", "stack"])
@pytest.mark.parametrize("named", [{}, {"UCX_NET_DEVICES": "mlx5_0"}])
def test_variable_that_the_baseline_does_not_name_is_swept(role: str, named: dict[str, str]) -> None:
    """A null is the shell's value, whether the baseline names other variables or none."""
    group = getattr(BASE, role)
    base = BASE.model_copy(update={role: group.model_copy(update={"env": named})})
    dimension = ChoiceDimension(kind="choice", path=f"{role}.env.UCX_TLS", values=("rc", None))
    sweep = Sweep(question="?", n_trials=2, space={"tls": dimension})
    assert locate_point(base, sweep) is None
    for value in dimension.values:
        bound = bind_point(base, sweep, {"tls": value})
        assert getattr(bound, role).env == {**named, "UCX_TLS": value}
        assert locate_point(bound, sweep) == {"tls": value}


def test_secret_in_a_sweep_is_refused_without_repeating_it() -> None:
    dimension = ChoiceDimension(kind="choice", path="prefill.env.HF_TOKEN", values=("hf_5ecret",))
    sweep = Sweep(question="?", n_trials=1, space={"token": dimension})
    with pytest.raises(ConfigurationError, match="HF_TOKEN looks like a secret") as refused:
        bind_point(BASE, sweep, {"token": "hf_5ecret"})
    assert "5ecret" not in str(refused.value)


@given(points)
def test_fill_decode_leaves_no_gpu_idle(point: dict[str, object]) -> None:
    assert PD_SPLIT.sweep is not None
    split = bind_point(BASE, PD_SPLIT.sweep, point).split
    assert split.prefill_workers == point["prefill_workers"]
    assert split.prefill_workers + split.decode_workers == 18


@pytest.mark.parametrize(
    ("prefill_tp", "decode_tp", "prefill_workers", "decode_workers"),
    [(4, 4, 14, 4), (4, 8, 14, 2), (2, 4, 28, 4), (2, 4, 27, 4), (2, 2, 27, 9), (8, 8, 9, 0), (8, 4, 8, 2)],
)
def test_fill_decode_works_at_any_parallelism(
    prefill_tp: int, decode_tp: int, prefill_workers: int, decode_workers: int
) -> None:
    assert PARALLELISM.sweep is not None
    point = {
        "prefill_tensor_parallel_size": prefill_tp,
        "decode_tensor_parallel_size": decode_tp,
        "prefill_workers": prefill_workers,
        "target_qps": 10.0,
    }
    assert bind_point(BASE, PARALLELISM.sweep, point).split.decode_workers == decode_workers


@pytest.mark.parametrize(
    ("family", "max_batch_size", "sizes"),
    [
        ("listed", 512, DECODE.graph_batch_sizes),
        ("listed", 100, (1, 2, 4, 8, 16, 32, 64, 96)),
        ("listed", 1, (1,)),
        ("powers_of_two", 512, (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)),
        ("powers_of_two", 100, (1, 2, 4, 8, 16, 32, 64)),
        ("steps_of_32", 100, (32, 64, 96)),
        ("steps_of_32", 20, (20,)),
        ("none", 512, ()),
    ],
)
def test_graph_families_give_sizes_up_to_the_largest_batch(
    family: str, max_batch_size: int, sizes: tuple[int, ...]
) -> None:
    engine = DECODE.model_copy(update={"max_batch_size": max_batch_size})
    assert with_graph_family(engine, family).graph_batch_sizes == sizes  # type: ignore[arg-type]


@given(
    st.lists(st.integers(1, 600), min_size=1, max_size=8),
    st.integers(1, 600),
    st.integers(1, 600),
    st.booleans(),
)
def test_captured_sizes_are_those_that_a_batch_can_reach(
    sizes: list[int], max_batch_size: int, max_num_tokens: int, padding: bool
) -> None:
    graphs = CudaGraphConfig(batch_sizes=tuple(sizes), enable_padding=padding)
    changes = {"max_batch_size": max_batch_size, "max_num_tokens": max_num_tokens}
    captured = DECODE.model_copy(update={"cuda_graph_config": graphs, **changes}).captured_graph_sizes
    largest = min(max_batch_size, max_num_tokens)
    assert graphs.batch_sizes == tuple(sorted(set(sizes)))
    assert list(captured) == sorted(captured)
    assert set(captured) - {largest} == {size for size in sizes if size < largest}
    assert (largest in captured) == (largest in sizes or (padding and max(sizes) > largest))


def test_graph_family_adds_graphs_and_removes_those_that_do_not_fit() -> None:
    assert with_graph_family(BASE.prefill, "powers_of_two").graph_batch_sizes[-1] == 128
    assert with_graph_family(BASE.prefill, "listed").cuda_graph_config is None
    large = DECODE.model_copy(update={"cuda_graph_config": CudaGraphConfig(batch_sizes=(128, 256))})
    assert (
        with_graph_family(large.model_copy(update={"max_batch_size": 64}), "listed").cuda_graph_config is None
    )


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("split.prefill_worker", 3, "which is not a setting of a trial; did you mean split.prefill_workers"),
        ("load", 3, "sweep.space.x: found 3 for load; expected an object"),
        ("load.target_qps.x", 3, "which is not a setting of a trial"),
        ("cluster.partition", "a", "which is not a setting of a trial"),
        ("load.target_qps", -3.0, "found -3.0 for load.target_qps; expected greater than 0"),
        ("decode.max_batch_size", None, "found null for decode.max_batch_size; expected a valid integer"),
        ("decode.max_batch_size", 1.5, "found 1.5 for decode.max_batch_size; expected a valid integer"),
    ],
)
def test_dimension_without_a_setting_is_one_clear_error(path: str, value: object, message: str) -> None:
    sweep = Sweep(
        question="?", n_trials=1, space={"x": OrderedDimension(kind="ordered", path=path, values=(1, 2))}
    )
    with pytest.raises(ConfigurationError, match=message):
        bind_point(BASE, sweep, {"x": value})


def test_setting_of_a_group_that_is_null_needs_what_has_no_default() -> None:
    plain = BASE.model_dump(mode="json")
    plain["load"]["dataset"] |= {"path": "lengths.csv", "inputs": None}
    base = TrialSpec.model_validate_json(json.dumps(plain))
    path = "load.dataset.inputs.tokens"
    sweep = Sweep(
        question="?", n_trials=1, space={"x": OrderedDimension(kind="ordered", path=path, values=(9,))}
    )
    with pytest.raises(ConfigurationError, match=r"and load\.dataset\.inputs\.kind has no default"):
        bind_point(base, sweep, {"x": 9})


@pytest.mark.parametrize(
    "changed",
    [
        {"load": BASE.load.model_copy(update={"target_qps": 40.0})},
        {"split": BASE.split.model_copy(update={"decode_workers": 3})},
        {"split": BASE.split.model_copy(update={"prefill_workers": 18, "decode_workers": 0})},
        {"decode": BASE.decode.model_copy(update={"max_batch_size": 100})},
        {"prefill": BASE.prefill.model_copy(update={"max_num_tokens": 4097})},
    ],
)
def test_configuration_outside_the_space_has_no_point(changed: dict[str, object]) -> None:
    assert PD_SPLIT.sweep is not None
    assert locate_point(BASE.model_copy(update=changed), PD_SPLIT.sweep) is None


@pytest.mark.parametrize(
    ("dimension", "inside", "outside"),
    [
        (IntDimension(kind="int", path="a.b", low=2, high=8, step=3), [2, 5, 8], [1, 3, 9, 2.5, "2"]),
        (FloatDimension(kind="float", path="a.b", low=1.0, high=2.0), [1, 1.3, 2.0], [0.9, 2.1, "1"]),
        (FloatDimension(kind="float", path="a.b", low=0.0, high=1.0, step=0.1), [0.3, 0.7], [0.25]),
        (GraphFamilyDimension(kind="graph_family", path="decode", values=("none",)), ["none"], ["listed"]),
    ],
)
def test_dimension_contains_its_own_values_only(
    dimension: object, inside: list[object], outside: list[object]
) -> None:
    assert all(contains(dimension, value) for value in inside)  # type: ignore[arg-type]
    assert not any(contains(dimension, value) for value in outside)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("decode.cuda_graph_config.batch_sizes", (1, 2, 8)),
        ("decode.scheduler_config", None),
        ("decode.scheduler_config.capacity_scheduler_policy", "MAX_UTILIZATION"),
        ("prefill.extra.print_iter_log", None),
        ("decode.extra.print_iter_log", True),
        ("slo.ttft_p50_s", 1.0),
    ],
)
def test_null_lists_and_settings_of_absent_groups_are_values(path: str, value: Any) -> None:
    dimension = ChoiceDimension(kind="choice", path=path, values=(value,))
    sweep = Sweep(question="?", n_trials=1, space={"x": dimension})
    spec = bind_point(BASE, sweep, {"x": value})
    assert locate_point(spec, sweep) == {"x": value}
    bound: Any = spec.model_dump(mode="json")
    for key in path.split("."):
        bound = bound[key]
    assert bound == (list(value) if isinstance(value, tuple) else value)


def test_null_in_a_group_that_is_null_is_the_configuration_itself() -> None:
    path = "decode.scheduler_config.capacity_scheduler_policy"
    dimension = ChoiceDimension(kind="choice", path=path, values=(None, "MAX_UTILIZATION"))
    sweep = Sweep(question="?", n_trials=1, space={"x": dimension})
    assert bind_point(BASE, sweep, {"x": None}) == BASE
    assert locate_point(BASE, sweep) == {"x": None}
