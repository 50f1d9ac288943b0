from __future__ import annotations

from collections.abc import Callable

import pytest
from tune.spec.local_rules import check_local

from tune.spec.trial import TrialSpec


@pytest.mark.parametrize(
    ("stack", "nodes", "broken"),
    [
        ("dynamo_v1_mocker", 18, False),
        ("dynamo_v1", 18, True),
        ("dynamo_v0", 2, True),
        ("dynamo_v0", 1, False),
        ("dynamo_v1", 1, False),
    ],
)
def test_real_engines_of_several_nodes_do_not_fit_one_machine(
    stack: str, nodes: int, broken: bool, make_spec: Callable[..., TrialSpec]
) -> None:
    findings = check_local(make_spec(stack__name=stack, hardware__nodes=nodes))
    assert [finding.severity for finding in findings] == ["error"] * broken
