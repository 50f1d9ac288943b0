"""Test the checks of runs in which the real load client met stand-ins for Dynamo's processes."""

from __future__ import annotations

import pytest
from support.fake_deployment import QUERIES, MakeTrial, Trial

from tune.analysis.measure import measure_attempt
from tune.records.run_check import RunCheck
from tune.spec.trial import TrialSpec

pytestmark = pytest.mark.slow

ANSWER_S = 0.1


def checks_of(trial: Trial) -> dict[str, RunCheck]:
    """Run the attempt and return the checks of its probe by name."""
    code, said = trial.run()
    assert code == 0, said
    (probe,) = measure_attempt(trial.attempt, trial.spec)
    assert probe.queries == QUERIES
    return {check.name: check for check in probe.checks}


def with_one_request_at_once(spec: TrialSpec) -> TrialSpec:
    load = spec.load.model_copy(update={"client_concurrency": 1})
    return spec.model_copy(update={"load": load})


def test_client_that_sends_too_late_is_off(make_trial: MakeTrial) -> None:
    """Queries come 60 a second, and a client that waits for each answer sends ten."""
    slow = {"late_after": 0, "late_s": ANSWER_S}
    trial = make_trial(real_client=True, behaviour=slow, alter=with_one_request_at_once)
    checks = checks_of(trial)
    assert checks["client"].result == "off"
    assert "99 % of the requests were sent within " in checks["client"].found
    assert checks["client"].evidence == ("raw/1/probe-1/requests.npz",)


def test_drained_deployment_is_counted_before_the_first_query(make_trial: MakeTrial) -> None:
    checks = checks_of(make_trial(real_client=True, behaviour={"late_after": 0, "late_s": ANSWER_S}))
    assert "99 % of the requests were sent within " in checks["client"].found
    assert checks["leftovers"].result == "as_meant", checks["leftovers"].found
    assert checks["leftovers"].found.startswith("none at 4 of 4 frontends and workers")
    assert checks["clocks"].found == "no GPU was sampled"
