"""Test that every shipped sweep composes, can run, and states its budget."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from tune.config import compose_overrides
from tune.engines.check import check
from tune.errors import ConfigurationError
from tune.spec.bind import bind_point, locate_point
from tune.spec.engine_table import settings_class
from tune.spec.findings import only_errors
from tune.spec.settings import Settings
from tune.spec.space import Dimension, FloatDimension, IntDimension, Value
from tune.study.sweep_check import check_sweep

ROOT = Path(__file__).parents[2]


SWEEPS = [path.stem for path in sorted((ROOT / "sweeps").glob("*.yaml"))]


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
        assert bind_point(composed.trial_spec, composed.sweep, point) == composed.trial_spec.with_own_pools()


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


VLLM = ("stack=dynamo_vllm", "prefill=vllm", "decode=vllm")
OF_TRTLLM_ALONE = {
    "batching": ("~sweep.space.prefill_chunking_policy",),
    "cuda_graphs": ("~sweep.space.decode_graph_padding", "~sweep.space.decode_overlap_off"),
}
"""Shipped sweeps with dimensions that vLLM has no setting for, and the overrides that leave these out."""


@pytest.mark.slow  # composes configurations and checks sweeps
@pytest.mark.parametrize("sweep", sorted({*SWEEPS} - {"everything"}))
def test_shipped_sweep_varies_settings_of_vllm(sweep: str) -> None:
    pools = (*VLLM, *(("aggregated=vllm",) if sweep == "disaggregation" else ()))
    composed = compose_overrides([f"+sweep={sweep}", *pools, *OF_TRTLLM_ALONE.get(sweep, ())]).settings
    assert composed.sweep is not None
    assert not only_errors(check_sweep(composed.trial_spec, composed.sweep, 0))


@pytest.mark.slow  # composes configurations
def test_a_neutral_name_and_the_engines_own_are_one_setting() -> None:
    def space(*overrides: str) -> dict[str, Dimension]:
        sweep = compose_overrides(["+sweep=pd_split", *overrides]).settings.sweep
        assert sweep is not None
        return dict(sweep.space)

    paths = {name: dimension.path for name, dimension in space(*VLLM).items()}
    assert paths["prefill_max_num_tokens"] == "prefill.max_num_batched_tokens"
    assert paths["decode_max_batch_size"] == "decode.max_num_seqs"
    own = "sweep.space.prefill_max_num_tokens.path=prefill.max_num_tokens"
    assert space(own) == space()
    with pytest.raises(ConfigurationError, match="two dimensions set the same path"):
        space("+sweep.space.again={kind: ordered, path: prefill.max_num_tokens, values: [64]}")
    for engine in ("sglang", "[trtllm]"):
        with pytest.raises(ConfigurationError, match=r"stack\.engine"):
            space(f"stack.engine={engine}")


def test_the_documented_neutral_names_are_those_of_the_engines() -> None:
    page = (ROOT / "docs" / "how-to" / "sweeps.md").read_text(encoding="utf-8")
    table = page.partition("| in a path |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table]
    for column, engine in enumerate(("trtllm", "dynamo_vllm"), 1):
        keys = dict(settings_class(engine).KEYS)
        del keys["graph_batch_sizes"]
        assert {row[0]: row[column] for row in rows if row[column]} == keys


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


@pytest.mark.slow
def test_command_line_overrides_the_search_of_a_sweep() -> None:
    assert compose_overrides(["+sweep=target_qps"]).settings.search.name == "grid"
    assert compose_overrides(["+sweep=target_qps", "search=random"]).settings.search.name == "random"


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
