"""Test what a calibration prints and writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from support.composed import composed
from support.measured_studies import calibration_of

from tune.calibrate.comparison import MetricComparison
from tune.calibrate.fit import FittedParameter
from tune.calibrate.measured_runs import MeasuredRun, RecordedRequests
from tune.calibrate.parameters import find_parameters
from tune.calibrate.settings_file import check_target, render_settings
from tune.calibrate.tables import describe_seeds, render_parameters, render_runs
from tune.config import compose_overrides, shipped_options
from tune.errors import ConfigurationError
from tune.spec.settings import Settings

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("prefill_scale", "ttft_overhead_s", "no_graph_overhead_s", "load.dataset.inputs.sd_tokens")
START = (
    "cluster.calibration.prefill_scale=0.9",
    "cluster.calibration.ttft_overhead_s=0.1",
    "cluster.calibration.no_graph_overhead_s=0.02",
    "load.dataset.inputs.sd_tokens=3830",
    "split.prefill_workers=13",
)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return composed(*START)


@pytest.fixture
def runs(settings: Settings) -> tuple[MeasuredRun, ...]:
    ones = np.ones(1, np.int64)
    spec = settings.trial_spec
    return (
        MeasuredRun("logs/a", spec, {}, None),
        MeasuredRun("trial 3 (t0123456789ab)", spec, {}, RecordedRequests(ones, ones, ones)),
    )


TABLES = (
    (
        MetricComparison(("ttft_s", "mean"), 1.5216, 1.5, 0.02),
        MetricComparison(("ttft_s", "p50"), 1.3899, 1.42, 0.01),
        MetricComparison(("tpot_s", "p90"), 0.05804, 0.0553, 0.0003),
        MetricComparison(("loadgen_tps", "mean"), 9897.52, 9723.0, 68.2),
    ),
    (
        MetricComparison(("ttft_s", "p99"), 4.2158, 4.2158, None),
        MetricComparison(("output_tps", "mean"), 9903.1, 9850.0, None),
    ),
)


@pytest.fixture
def fitted(settings: Settings) -> tuple[FittedParameter, ...]:
    result = find_parameters(NAMES, calibration_of(settings), settings.load.dataset)
    metrics = (
        (0.91, 0.88, 0.94, 0.1),
        (0.0, 0.0, 0.2, 0.6),
        (0.021, 0.01, 0.03, 0.99),
        (3552.4, 3080, 4098, 0.49),
    )
    return tuple(FittedParameter(ones, *values) for ones, values in zip(result, metrics, strict=True))


def assert_golden(text: str, name: str, regenerate: bool) -> None:
    path = GOLDEN / name
    if regenerate:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_tables_equal_the_golden_text(
    runs: tuple[MeasuredRun, ...], fitted: tuple[FittedParameter, ...], regenerate_golden: bool
) -> None:
    text = [
        render_runs(runs, TABLES),
        render_parameters(fitted),
        describe_seeds(runs),
        describe_seeds(runs[1:]),
    ]
    assert_golden("\n\n".join(text) + "\n", "tables.txt", regenerate_golden)


def test_settings_name_the_fitted_runs(
    settings: Settings,
    runs: tuple[MeasuredRun, ...],
    fitted: tuple[FittedParameter, ...],
    regenerate_golden: bool,
) -> None:
    text = render_settings(calibration_of(settings), runs, TABLES, fitted)
    head, _, values = text.partition("calibration:\n")
    assert_golden(head, "settings_head.txt", regenerate_golden)
    assert "prefill_scale: 0.91  # fitted: 95 % 0.88 .. 0.94, bounds 0.5 .. 2, 10% of the prior's" in values
    assert "no_graph_overhead_s: 0.021  # fitted" in values
    assert values.count("# fitted") == 3


def test_settings_hold_the_complete_calibration(
    settings: Settings, runs: tuple[MeasuredRun, ...], fitted: tuple[FittedParameter, ...]
) -> None:
    calibration = calibration_of(settings)
    result = yaml.safe_load(render_settings(calibration, runs, TABLES, fitted))
    assert result["defaults"] == ["sim", "_self_"]
    expected = calibration.model_dump() | {
        "prefill_scale": 0.91,
        "ttft_overhead_s": 0.0,
        "no_graph_overhead_s": 0.021,
    }
    assert {name: float(value) for name, value in result["calibration"].items()} == expected


def test_settings_compose_as_a_cluster(
    settings: Settings, runs: tuple[MeasuredRun, ...], fitted: tuple[FittedParameter, ...], tmp_path: Path
) -> None:
    path = tmp_path / "cluster" / "rack_7.yaml"
    path.parent.mkdir()
    path.write_text(render_settings(calibration_of(settings), runs, TABLES, fitted), encoding="utf-8")
    composed = compose_overrides(["cluster=rack_7"], [str(tmp_path)])
    assert composed.study_name == "single-rack_7"
    assert composed.settings.cluster.kind == "sim"
    assert calibration_of(composed.settings).prefill_scale == 0.91
    assert calibration_of(composed.settings).decode_scale == calibration_of(settings).decode_scale


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rack7.yaml", "expected DIR/cluster/NAME.yaml"),
        ("cluster/rack7.yml", "expected DIR/cluster/NAME.yaml"),
        ("cluster/rack 7.yaml", "expected DIR/cluster/NAME.yaml"),
        ("cluster/sim.yaml", "cluster=sim is shipped with tune"),
        ("cluster/mine.yaml", "action=calibrate did not write it"),
        ("cluster/folder.yaml", "action=calibrate did not write it"),
    ],
)
def test_unusable_target_paths_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "cluster" / "folder.yaml").mkdir(parents=True)
    (tmp_path / "cluster" / "mine.yaml").write_text("kind: sim\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"calibrate\.to") as error:
        check_target(tmp_path / name, shipped_options("cluster"))
    assert message in str(error.value)


def test_calibration_may_replace_an_older_one(
    settings: Settings, runs: tuple[MeasuredRun, ...], fitted: tuple[FittedParameter, ...], tmp_path: Path
) -> None:
    path = tmp_path / "cluster" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(render_settings(calibration_of(settings), runs, TABLES, fitted), encoding="utf-8")
    check_target(path, shipped_options("cluster"))
