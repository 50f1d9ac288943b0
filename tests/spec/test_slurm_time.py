"""Read durations as Slurm writes them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.composed import changed, composed

from tune.deploy.job_script import sbatch_options
from tune.spec.cluster_rules import check_cluster
from tune.spec.slurm_time import duration_s, time_limit_s


@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_a_duration_is_read_in_every_form(days: int, hours: int, minutes: int, seconds: int) -> None:
    whole_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert duration_s(f"{days}-{hours:02d}:{minutes:02d}:{seconds:02d}") == whole_s
    assert duration_s(f"{days}-{hours:02d}:{minutes:02d}") == whole_s - seconds
    assert duration_s(f"{days}-") == days * 86400
    assert duration_s(f"{days}-{hours}") == (days * 24 + hours) * 3600
    assert duration_s(f"{hours}:{minutes:02d}:{seconds:02d}") == whole_s - days * 86400
    assert duration_s(f"{minutes}:{seconds:02d}") == minutes * 60 + seconds
    assert duration_s(str(minutes)) == minutes * 60


@pytest.mark.parametrize(
    "text", ["UNLIMITED", "INVALID", "Partition_Limit", "", "1:2:3:4", "-5", "1-2-", "-"]
)
def test_text_that_is_no_duration_is_none(text: str) -> None:
    assert duration_s(text) is None


@pytest.mark.parametrize(
    "limit",
    [
        "90",
        "90:30",
        "4:00:00",
        "36:00:00",
        "2-12",
        "2-12:30",
        "1-00:00:00",
        "10-0",
        "3-",
        "0",
        "-1",
        "UNLIMITED",
    ],
)
def test_a_time_limit_has_any_form_that_slurm_reads(limit: str) -> None:
    facts = changed(composed("cluster=slurm"), f"cluster.time_limit='{limit}'").cluster
    assert facts.time_limit == limit
    assert sbatch_options(facts, 18, 4)["time"] == limit


@pytest.mark.parametrize("limit", ["0", "0:00", "-1", "infinite", "UNLIMITED"])
def test_a_job_may_have_no_time_limit(limit: str) -> None:
    assert time_limit_s(limit) == math.inf


def test_a_time_limit_may_be_a_number_of_minutes() -> None:
    facts = changed(composed("cluster=slurm"), "cluster.time_limit=90").cluster
    assert facts.time_limit == "90"


@pytest.mark.parametrize("limit", ["soon", "-5", "1:2:3:4", "1-2-", "1.5", "true"])
def test_a_time_limit_that_slurm_cannot_read_is_refused(limit: str) -> None:
    with pytest.raises(ValidationError, match=r"cluster\.time_limit\n.*input_value="):
        changed(composed("cluster=slurm"), f"cluster.time_limit={limit}")


@pytest.mark.parametrize(
    ("limit", "signal_s", "found"), [("1:00:00", 90, 0), ("0:01:00", 60, 1), ("01:30", 200, 1)]
)
def test_stop_signal_comes_after_the_start_of_a_job(limit: str, signal_s: int, found: int) -> None:
    words = [f"cluster.time_limit='{limit}'", f"cluster.signal_s={signal_s}", "cluster.model_path=/models/m"]
    words += ["cluster.partition=batch", "cluster.account=null"]
    facts = changed(composed("cluster=slurm"), *words).cluster
    findings = check_cluster(facts, "/home/ada", placeholders="error")
    assert [finding.path for finding in findings] == ["cluster.signal_s"] * found
