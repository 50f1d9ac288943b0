from __future__ import annotations

from collections.abc import Callable

import pytest

from tune.engines.check import check_local
from tune.spec.trial import TrialSpec


@pytest.mark.parametrize(
    ("engine", "nodes", "broken"),
    [("dynamo_mocker", 18, False), ("trtllm", 18, True), ("trtllm", 2, True), ("trtllm", 1, False)],
)
def test_real_engines_of_several_nodes_are_refused_on_one_machine(
    engine: str, nodes: int, broken: bool, make_spec: Callable[..., TrialSpec]
) -> None:
    findings = check_local(make_spec(stack__engine=engine, hardware__nodes=nodes))
    assert [finding.severity for finding in findings] == ["error"] * broken
