"""Test the settings of a closed loop: contradictions, defaults, and how its trials go on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.composed import composed
from support.loads import make_load

from tune.cli.runnable import check_configuration
from tune.config import compose_overrides, trial_overrides
from tune.errors import ConfigurationError
from tune.spec.findings import only_errors
from tune.spec.load import QUERIES_PER_USER, Trace
from tune.spec.settings import Settings
from tune.study.identity import merge_on_resume, study_record

ROOT = Path(__file__).parents[2]
CLOSED = ("load.mode=concurrency", "load.concurrency=48")


def broken(settings: Settings) -> dict[str, str]:
    """Return what each broken rule found, by its path."""
    return {finding.path: finding.found for finding in only_errors(check_configuration(settings))}


def test_users_take_the_place_of_the_rate() -> None:
    load = composed(*CLOSED).load
    assert (load.is_closed_loop, load.target_qps, load.text) == (True, None, "48 users")
    assert load.model_copy(update={"concurrency": 1}).text == "1 user"
    assert load.expected_queries == QUERIES_PER_USER * 48
    assert load.model_copy(update={"concurrency": 2}).expected_queries == 459
    assert load.model_copy(update={"min_queries": 1000}).expected_queries == 1000
    assert composed().load.text == "15.75 queries/s"


USERS = {"mode": "concurrency", "concurrency": 48, "target_qps": None, "client_concurrency": 64}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (USERS | {"concurrency": None}, "mode=concurrency needs its users; give load.concurrency=USERS"),
        ({"concurrency": 8}, "concurrency is 8, the users of a closed loop, but mode is fixed"),
        ({"concurrency": 8, "mode": "capacity"}, "but mode is capacity"),
        (
            {"target_qps": None},
            "target_qps is null, but mode=fixed sends at a rate; give load.target_qps=QPS",
        ),
        (USERS | {"target_qps": 10.0}, "target_qps is 10, but mode=concurrency is a closed loop"),
        (USERS | {"rate_range_qps": (5.0, 9.0)}, "give load.rate_range_qps=null"),
        (USERS | {"trace": Trace(time_unit="ms")}, "a trace has arrivals of its own; give load.trace=null"),
        (USERS | {"accuracy": True}, "give load.accuracy=false"),
        (USERS | {"concurrency": 0}, "greater than 0"),
        (
            USERS | {"concurrency": 65},
            "the client keeps 64 requests in flight; give load.client_concurrency=65",
        ),
    ],
)
def test_contradictions_are_named(changes: dict[str, Any], message: str) -> None:
    assert make_load(**USERS).is_closed_loop
    with pytest.raises(ValidationError) as caught:
        make_load(**changes)
    assert message in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("load=fixed",), "load: target_qps is 10, but mode=concurrency"),
        (("+sweep=target_qps",), "load.mode=concurrency has none"),
    ],
)
def test_a_rate_that_is_composed_is_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        compose_overrides((*CLOSED, *overrides))
    assert message in str(caught.value)


def test_trials_of_an_open_loop_have_no_users_on_record() -> None:
    assert '"concurrency"' not in composed().trial_spec.canonical()
    assert '"concurrency":48' in composed(*CLOSED).trial_spec.canonical()


@pytest.mark.slow
def test_recorded_overrides_compose_the_trial_again() -> None:
    settings = composed(*CLOSED)
    again = trial_overrides(settings.trial_spec, settings)
    assert not [text for text in again if text.startswith("+")]
    assert compose_overrides(again).settings.trial_spec == settings.trial_spec


@pytest.mark.slow
def test_a_sweep_has_no_rate_in_a_closed_loop() -> None:
    assert "load.target_qps" in (ROOT / "sweeps" / "pd_split.yaml").read_text(encoding="utf-8")
    sweep = composed(*CLOSED, "+sweep=pd_split").sweep
    assert sweep is not None
    assert sweep.ends("load.target_qps") is None


@pytest.mark.slow
def test_what_has_no_closed_loop_is_refused() -> None:
    assert broken(composed(*CLOSED)) == {}
    assert "search.name" in broken(composed(*CLOSED, "+sweep=pd_split", "search=surrogate"))
    aggregated = composed(*CLOSED, "split=aggregated")
    assert broken(aggregated)["load.mode"] == "concurrency with aggregated workers"


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [(), ("+sweep=pd_split",)])
def test_a_study_has_one_kind_of_loop(sweep: tuple[str, ...]) -> None:
    opened, closed = (study_record(composed(*loop, *sweep), "one", ()) for loop in ((), CLOSED))
    assert (opened.loop, closed.loop) == ("open", "closed")
    assert "loop" not in opened.model_dump()
    assert merge_on_resume(closed, closed) == closed
    for recorded, requested in ((opened, closed), (closed, opened)):
        with pytest.raises(ConfigurationError) as caught:
            merge_on_resume(recorded, requested)
        assert (
            f"the loop of the load (load.mode): the study has '{recorded.loop}', this command says "
            f"'{requested.loop}'"
        ) in str(caught.value)


@pytest.mark.slow
def test_single_trials_of_a_closed_loop_have_a_study_of_their_own() -> None:
    assert compose_overrides(CLOSED).study_name == "users-sim"
    assert compose_overrides(()).study_name == "single-sim"
