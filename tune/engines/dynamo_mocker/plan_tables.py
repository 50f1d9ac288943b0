"""The whole plan of a trial, whatever its engines are."""

from __future__ import annotations

from dataclasses import replace

from tune.deploy.mock_processes import mock_calibration
from tune.deploy.plan import LaunchPlan, render
from tune.spec.cluster import ClusterFacts
from tune.spec.trial import TrialSpec


def render_plan(spec: TrialSpec, facts: ClusterFacts) -> LaunchPlan:
    """`render`, and the tables that mock engines take their step times from. Raises ConfigurationError as it does."""
    plan = render(spec, facts)
    if not spec.stack.mocked:
        return plan
    from tune.engines.dynamo_mocker.step_time_tables import step_times  # noqa: PLC0415  (numba takes seconds, real engines need none)

    return replace(plan, tables=step_times(spec, mock_calibration(facts)))
