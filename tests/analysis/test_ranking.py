import json
import random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.outcomes import failed, infeasible, measured

from tune.analysis.ranking import outcome_frame, rank, write_ranking
from tune.errors import ConfigurationError
from tune.records.posterior_summary import Interval, PosteriorSummary, TrialPosterior

COLUMNS = 15 + 3 + 3 * 8 + 2 + 22 + 2 + 5 + 2 * 4 + 1


def test_frame_has_one_row_per_outcome_in_order():
    data = outcome_frame([measured(5), failed(3), infeasible(4)])
    assert list(data["number"]) == [5, 3, 4]
    assert list(data["status"]) == ["measured", "failed", "infeasible"]
    assert data.shape == (3, COLUMNS)
    row = data.iloc[0]
    assert (row["ttft_p99_s"], row["tpot_p99_s"], row["latency_max_s"]) == (3.0, 0.06, 40.0)
    assert (row["output_tps_per_gpu"], row["target_qps"], row["capacity_low_qps"]) == (125.0, 15.75, 15.75)
    assert (row["ttft_p99_constraint"], row["queue_s"], row["decode_batch"]) == (-0.1, 0.4, 119.0)
    assert (row["shuffles"], row["slo_met_shuffles"], row["ttft_p99_shuffles_sd_s"]) == (5, 5, 0.5)
    assert (row["bottleneck"], row["tail_queue_s"]) == ("prefill", 2.0)
    assert (row["probes"], row["attempts"], row["gpu_hours"], row["wall_s"]) == (1, 1, 36.0, 1800.0)


def test_absent_figures_are_missing_and_columns_keep_their_types():
    data = outcome_frame([measured(), failed()])
    assert data.loc[1, ["output_tps", "ttft_p99_s", "queue_s", "ttft_p99_constraint"]].isna().all()
    assert data["reason"].isna().tolist() == [True, False]
    assert pd.isna(data.loc[0, ["slot_s", "tpot_p99_shuffles_sd_s"]]).all()
    assert pd.isna(data.loc[1, ["shuffles", "ttft_p99_shuffles_sd_s", "bottleneck"]]).all()
    types = {"number": "int64", "feasible": "bool", "output_tps": "float64", "status": "str", "reason": "str"}
    assert {name: str(data[name].dtype) for name in types} == types


def test_frame_without_outcomes_keeps_columns_and_types():
    empty, one = outcome_frame([]), outcome_frame([failed()])
    assert list(empty.columns) == list(one.columns)
    assert list(empty.dtypes) == list(one.dtypes)
    assert empty.shape == (0, COLUMNS)


def test_parameters_keep_their_types_where_some_rows_lack_them():
    rows = [
        measured(0, params={"workers": 14, "qps": 15.0, "graphs": "listed", "chunked": True}),
        measured(1, params={"workers": 13, "qps": 16.5, "mixed": 1}),
        measured(2, params={"mixed": "none", "chunked": False}),
    ]
    data = outcome_frame(rows)
    types = {name: str(data[f"param.{name}"].dtype) for name in ("workers", "qps", "chunked")}
    assert types == {"workers": "Int64", "qps": "float64", "chunked": "boolean"}
    assert data["param.workers"].tolist()[:2] == [14, 13]
    assert data["param.workers"].isna().tolist() == [False, False, True]
    assert data["param.graphs"].isna().tolist() == [False, True, True]
    assert data["param.mixed"].tolist()[1:] == [1, "none"]
    assert outcome_frame([measured(0, params={"qps": 15.0})])["param.qps"].dtype == "float64"


def test_feasible_rank_by_tokens_then_nearest_misses():
    outcomes = [
        measured(0, tps=9000.0),
        measured(1, tps=12_000.0, feasible=False, ttft=0.4),
        failed(2),
        measured(3, tps=9500.0),
        measured(4, tps=5000.0, feasible=False, ttft=-0.2, tpot=0.1),
        infeasible(5),
        measured(6, tps=9500.0),
        measured(7, valid=False, ttft=None, tpot=None),
    ]
    rows = rank(outcomes)
    assert [row["number"] for row in rows] == [3, 6, 0, 4, 1, 7]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["feasible"] for row in rows] == [True] * 3 + [False] * 3


def test_posterior_expectation_decides_the_ranking():
    lucky, steady = (
        measured(number, tps=tps).model_copy(update={"trial_id": f"t{number}"})
        for number, tps in enumerate((9100.0, 9000.0))
    )
    interval = Interval(low=14.0, median=15.0, high=16.0)
    trials = tuple(
        TrialPosterior(
            trial_id=one.trial_id,
            number=one.number,
            measured_qps=15.0,
            simulated_qps=interval,
            standardised_residual=0.0,
            expected_capacity_qps=expected_capacity_qps,
        )
        for one, expected_capacity_qps in ((lucky, 14.5), (steady, 15.0))
    )
    posterior = PosteriorSummary(
        schema=2,
        trials_observed=2,
        parameters=(),
        hypotheses=(),
        trials=trials,
        expected_improvement_frac=0.0,
        calibration={},
    )
    assert [row["number"] for row in rank([lucky, steady])] == [0, 1]
    assert [row["number"] for row in rank([lucky, steady], posterior)] == [1, 0]


def test_feasible_ranks_first_at_any_throughput():
    rows = rank([measured(0, feasible=False, ttft=-0.2), measured(1, tps=0.72)])
    assert [row["number"] for row in rows] == [1, 0]


def test_ranking_row_has_the_published_fields():
    (row,) = rank([measured(7, params={"prefill_workers": 14}, overrides=["split.prefill_workers=14"])])
    assert row == {
        "rank": 1,
        "trial_id": measured().trial_id,
        "number": 7,
        "feasible": True,
        "output_tps_per_gpu": 125.0,
        "ttft_p99_s": 3.0,
        "tpot_p99_s": 0.06,
        "target_qps": 15.75,
        "shuffles": 5,
        "slo_met_shuffles": 5,
        "hold_probability": 11 / 12,
        "hold_probability_low": pytest.approx(0.6943, abs=1e-4),
        "hold_probability_high": 1.0,
        "ttft_p99_shuffles_mean_s": 3.5,
        "ttft_p99_shuffles_sd_s": 0.5,
        "ttft_p99_shuffles_min_s": 3.0,
        "ttft_p99_shuffles_max_s": 4.25,
        "tpot_p99_shuffles_mean_s": None,
        "tpot_p99_shuffles_sd_s": None,
        "tpot_p99_shuffles_min_s": None,
        "tpot_p99_shuffles_max_s": None,
        "bottleneck": "prefill",
        "params": {"prefill_workers": 14},
        "overrides": ["split.prefill_workers=14"],
    }


def test_ranking_without_measured_trials_is_empty():
    assert rank([]) == rank([failed(), infeasible()]) == []


OUTCOMES = st.lists(
    st.tuples(
        st.sampled_from([8000.0, 9000.0, 9500.0]),
        st.booleans(),
        st.sampled_from([None, -0.5, 0.0, 0.2]),
        st.sampled_from([None, -0.5, 0.0, 0.2]),
    ),
    max_size=8,
)


@pytest.mark.slow
@given(OUTCOMES, st.randoms(use_true_random=False))
def test_ranking_is_total_and_independent_of_input_order(drawn, chance: random.Random):
    outcomes = [
        measured(number, tps=tps, feasible=feasible, ttft=ttft, tpot=tpot)
        for number, (tps, feasible, ttft, tpot) in enumerate(drawn)
    ]
    rows = rank(outcomes)
    chance.shuffle(outcomes)
    assert rank(outcomes) == rows
    assert sorted(row["number"] for row in rows) == list(range(len(drawn)))
    assert [row["rank"] for row in rows] == list(range(1, len(drawn) + 1))
    feasible = [row["output_tps_per_gpu"] for row in rows if row["feasible"]]
    assert feasible == sorted(feasible, reverse=True)
    assert all(row["feasible"] for row in rows[: len(feasible)])


def test_ranking_file_holds_all_rows(tmp_path):
    rows = rank(
        [
            measured(
                0,
                tps=9500.0,
                params={"workers": 14},
                overrides=["split.prefill_workers=14", "study.name='a b'"],
            ),
            measured(1, params={"graphs": "none, or few"}),
        ]
    )
    write_ranking(tmp_path / "reports", rows)
    assert json.loads((tmp_path / "reports" / "ranking.json").read_text()) == rows


def test_empty_ranking_still_writes_a_file(tmp_path):
    write_ranking(tmp_path, [])
    assert json.loads((tmp_path / "ranking.json").read_text()) == []


def test_unwritable_ranking_raises(tmp_path):
    (tmp_path / "ranking.json").mkdir()
    with pytest.raises(ConfigurationError, match=r"ranking\.json: is a folder"):
        write_ranking(tmp_path, [])
