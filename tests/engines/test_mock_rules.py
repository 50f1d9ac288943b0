from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tune.engines.check import check
from tune.engines.dynamo_mocker.mock_rules import check_mocked
from tune.spec.findings import Severity
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]

MOCKED = {
    "stack__name": "dynamo_v1_mocker",
    "stack__engine": "dynamo_mocker",
    "stack__engine_yaml": "nested",
    "stack__system_port": 9100,
}


def test_reference_breaks_no_rule_of_mock_engines(make_spec: MakeSpec) -> None:
    assert not list(check_mocked(make_spec(**MOCKED)))


@pytest.mark.parametrize(
    ("changes", "severity", "path"),
    [
        ({"stack__system_port": None}, "error", "stack.system_port"),
        ({"stack__system_port": 32751}, "error", "stack.system_port"),
        ({"stack__system_port": 7990}, "error", "stack"),
        ({"stack__nats_port": 2379}, "error", "stack"),
        (
            {"prefill__scheduler_config__capacity_scheduler_policy": "STATIC_BATCH"},
            "error",
            "prefill.scheduler_config.capacity_scheduler_policy",
        ),
        (
            {"prefill__scheduler_config__context_chunking_policy": "EQUAL_PROGRESS"},
            "warning",
            "prefill.scheduler_config.context_chunking_policy",
        ),
        ({"prefill__pipeline_parallel_size": 2}, "warning", "prefill.pipeline_parallel_size"),
        ({"decode__stream_interval": 20}, "warning", "decode.stream_interval"),
        ({"decode__extra": {"x": 1}}, "warning", "decode"),
    ],
)
def test_setting_without_a_mock_counterpart_is_one_finding(
    changes: dict[str, Any], severity: Severity, path: str, make_spec: MakeSpec
) -> None:
    mocked = make_spec(**MOCKED | changes)
    (finding,) = check_mocked(mocked)
    assert (finding.severity, finding.path) == (severity, path)
    assert finding in check(mocked)
    real = make_spec(**MOCKED | changes | {"stack__name": "dynamo_v1", "stack__engine": "trtllm"})
    assert finding not in check(real)


def test_last_port_may_be_the_highest(make_spec: MakeSpec) -> None:
    assert not list(check_mocked(make_spec(**MOCKED | {"stack__system_port": 32750})))
