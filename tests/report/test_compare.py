"""Test that the comparison of two trials names first what ran, then the settings, then the place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from support.outcomes import measured
from support.synthetic_study import study

from tune.records.folders import StudyFolder
from tune.records.run_check import CheckResult, RunCheck
from tune.report.compare import render_comparison
from tune.report.page import provenance
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]


def record(runs: Path, spec: TrialSpec, checks: Iterable[RunCheck] = (), **provenance: Any) -> str:
    """Put a measured trial with this provenance on record; return its name for a comparison."""
    folder = StudyFolder(runs / "s").trial(spec.trial_id)
    folder.root.mkdir(parents=True)
    folder.write_spec(spec)
    folder.write_outcome(measured().model_copy(update={"provenance": provenance, "checks": tuple(checks)}))
    return f"s/{spec.trial_id}"


def found(engine: str, power: str) -> dict[str, Any]:
    hardware = {"GPUs": "4 x NVIDIA GB200", "GPU power limit": power}
    versions = {"ai-dynamo": "1.3.0", "tensorrt_llm": engine}
    return {"nodes": ["g01"], "versions": versions, "hardware": hardware, "missing": {}}


def test_versions_come_first_then_settings_then_nodes(make_spec: MakeSpec, tmp_path: Path) -> None:
    a = record(
        tmp_path,
        make_spec(),
        evidence=found("1.3.0rc5", "1200.00 W") | {"transport": {"UCX_TLS": "rc"}},
        versions={"tune": "0.2.0", "checkout": "0123456789ab"},
        environment={"cluster.srun_env": {"ENROOT_ALLOW_DEV": "yes"}},
        launch_options={"command_prefix.decode": "numactl -m 0,1", "mpi": "none"},
        image_sha256="aa",
    )
    b = record(
        tmp_path,
        make_spec(split__prefill_workers=13),
        evidence=found("1.3.0rc29", "1000.00 W"),
        versions={"tune": "0.2.0", "checkout": "0123456789ab-dirty"},
        launch_options={"mpi": "pmi2"},
    )
    rows = [line.split("  ") for line in render_comparison(tmp_path, a, b).splitlines()]
    shown = [[cell.strip() for cell in row if cell.strip()] for row in rows][2:12]
    assert shown == [
        ["digest of the image", "aa", "not on record"],
        ["tensorrt_llm", "1.3.0rc5", "1.3.0rc29"],
        ["checkout", "0123456789ab", "0123456789ab-dirty"],
        ["split.prefill_workers", "14", "13"],
        ["cluster.srun_env.ENROOT_ALLOW_DEV", "yes", "not on record"],
        ["cluster.command_prefix.decode", "numactl -m 0,1", "not on record"],
        ["cluster.mpi", "none", "pmi2"],
        ["GPU power limit", "1200.00 W", "1000.00 W"],
        ["UCX_TLS", "rc", "not on record"],
        ["status", "holds its SLO", "holds its SLO"],
    ]


def checks(**results: CheckResult) -> list[RunCheck]:
    return [RunCheck(name=name, result=result, found="", threshold="") for name, result in results.items()]


def nodes(*names: str) -> dict[str, Any]:
    return found("1.3.0rc5", "1200.00 W") | {"nodes": list(names)}


@pytest.mark.parametrize(
    ("of_a", "of_b", "shown"),
    [
        (("g01", "g02", "g03"), ("g01", "g04", "g03"), ["nodes", "g02", "g04"]),
        (("g01", "g02"), ("g01", "g02", "g03"), ["nodes", "no others", "g03"]),
        (("g01",), (), ["nodes", "g01", "not on record"]),
        (("g01", "g02"), ("g02", "g01"), ["order of nodes", "g01, g02", "g02, g01"]),
        (("g01", "g02"), ("g01", "g02"), None),
    ],
)
def test_nodes_of_one_alone_are_named(
    of_a: tuple[str, ...], of_b: tuple[str, ...], shown: list[str] | None, make_spec: MakeSpec, tmp_path: Path
) -> None:
    a = record(tmp_path, make_spec(), evidence=nodes(*of_a))
    b = record(tmp_path, make_spec(split__prefill_workers=13), evidence=nodes(*of_b))
    lines = [re.split(r" {2,}", line) for line in render_comparison(tmp_path, a, b).splitlines()]
    assert [cells for cells in lines if "nodes" in cells[0]] == ([shown] if shown else [])


def test_checks_of_the_run_that_differ_or_are_off_are_named(make_spec: MakeSpec, tmp_path: Path) -> None:
    a = record(
        tmp_path,
        make_spec(),
        checks(kv_transfers="as_meant", worker_speed="off", client="as_meant", clocks="off"),
    )
    b = record(
        tmp_path,
        make_spec(split__prefill_workers=13),
        checks(kv_transfers="not_counted", worker_speed="as_meant", client="as_meant", clocks="off"),
    )
    bare = record(tmp_path, make_spec(split__prefill_workers=12))

    def shown(first: str, second: str) -> list[list[str]]:
        lines = render_comparison(tmp_path, first, second).splitlines()
        return [re.split(r" {2,}", line) for line in lines if line.startswith("check of")]

    assert shown(a, b) == [
        ["check of KV transfers", "as meant", "not counted"],
        ["check of speed of workers", "off", "as meant"],
        ["check of clocks of GPUs", "off", "off"],
    ]
    assert shown(bare, b)[2] == ["check of load client", "not on record", "as meant"]


def test_the_page_names_what_the_nodes_found_and_what_is_missing() -> None:
    evidence = found("1.3.0rc5", "1200.00 W") | {"missing": {"UCX": "no library"}}
    rows = dict(provenance(study(), [measured().model_copy(update={"provenance": {"evidence": evidence}})]))
    assert rows["Trials' tensorrt_llm on the nodes"] == '"1.3.0rc5"'
    assert rows["Trials' GPU power limit on the nodes"] == '"1200.00 W"'
    assert rows["Trials' evidence that is missing"] == '["UCX"]'
    assert "Trials' evidence" not in rows


def test_trials_without_evidence_compare_by_their_settings(make_spec: MakeSpec, tmp_path: Path) -> None:
    a, b = (record(tmp_path, make_spec(split__prefill_workers=n)) for n in (14, 13))
    lines = render_comparison(tmp_path, a, b).splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["split.prefill_workers", "status"]
