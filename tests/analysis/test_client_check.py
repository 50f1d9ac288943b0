"""Test that a load client is named which sends late or computes all the time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.request_logs import make_log
from support.run_evidence import BEGAN_AT_S, LeftRun

from tune.records.requests import RequestLog


def sent(late_s: float, busy_frac: float | None, ttft_s: float = 1.5) -> RequestLog:
    """Return requests of which two in a hundred are sent `late_s` late, the others in time."""
    log = make_log(1000, 4.0, ttft_s=ttft_s)
    late_ns = np.where(np.arange(len(log)) % 50 == 0, int(late_s * 1e9), 1000)
    return replace(log, began_at_s=BEGAN_AT_S, sent_ns=log.scheduled_ns + late_ns, client_busy_frac=busy_frac)


@pytest.mark.parametrize(
    ("late_s", "busy_frac", "ttft_s", "result"),
    [
        (0.005, 0.1, 0.1, "as_meant"),
        (0.012, 0.1, 0.1, "off"),
        (0.012, 0.1, 1.5, "as_meant"),
        (0.1, 0.1, 1.5, "off"),
        (0.001, 0.79, 1.5, "as_meant"),
        (0.001, 0.85, 1.5, "off"),
    ],
)
def test_lateness_is_compared_with_the_p99_of_ttft(
    late_s: float, busy_frac: float, ttft_s: float, result: str, tmp_path: Path
) -> None:
    check = LeftRun(tmp_path, log=sent(late_s, busy_frac, ttft_s)).check("client")
    assert check.result == result
    assert f"within {late_s * 1e3:.3g} ms of their time" in check.found
    assert f"computed {busy_frac * 100:.0f} % of the time" in check.found
    assert check.evidence == ("raw/1/probe-1/requests.npz",)


def test_request_that_was_never_sent_has_no_lateness(tmp_path: Path) -> None:
    log = sent(0.001, 0.1)
    assert log.sent_ns is not None
    log.sent_ns[:5] = -1
    assert LeftRun(tmp_path, log=log).check("client").result == "as_meant"


def test_record_of_an_older_client_is_not_counted(tmp_path: Path) -> None:
    check = LeftRun(tmp_path).check("client")
    assert check.result == "not_counted"
    assert "did not record" in check.found
