"""The comparison of two trials names first what ran, then what was set, then where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.outcomes import measured
from support.synthetic_study import study

from tune.records.folders import StudyFolder
from tune.report.compare import render_comparison
from tune.report.page import provenance
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]


def record(runs: Path, spec: TrialSpec, **provenance: Any) -> str:
    """Put a measured trial with this provenance on record; return its name for a comparison."""
    folder = StudyFolder(runs / "s").trial(spec.trial_id)
    folder.write_spec(spec)
    folder.write_outcome(measured().model_copy(update={"provenance": provenance}))
    return f"s/{spec.trial_id}"


def found(engine: str, power: str) -> dict[str, Any]:
    hardware = {"GPUs": "4 x NVIDIA GB200", "GPU power limit": power}
    versions = {"ai-dynamo": "1.3.0", "tensorrt_llm": engine}
    return {"nodes": ["g01"], "versions": versions, "hardware": hardware, "missing": {}}


def test_versions_come_first_then_settings_then_nodes(make_spec: MakeSpec, tmp_path: Path) -> None:
    a = record(
        tmp_path,
        make_spec(),
        evidence=found("1.3.0rc5", "1200.00 W"),
        versions={"tune": "0.2.0", "checkout": "0123456789ab"},
        environment={"cluster.srun_env": {"ENROOT_ALLOW_DEV": "yes"}},
        image_sha256="aa",
    )
    b = record(
        tmp_path,
        make_spec(split__prefill_workers=13),
        evidence=found("1.3.0rc29", "1000.00 W"),
        versions={"tune": "0.2.0", "checkout": "0123456789ab-dirty"},
    )
    rows = [line.split("  ") for line in render_comparison(tmp_path, a, b).splitlines()]
    shown = [[cell.strip() for cell in row if cell.strip()] for row in rows][2:9]
    assert shown == [
        ["digest of the image", "aa", "not on record"],
        ["tensorrt_llm", "1.3.0rc5", "1.3.0rc29"],
        ["checkout", "0123456789ab", "0123456789ab-dirty"],
        ["split.prefill_workers", "14", "13"],
        ["cluster.srun_env.ENROOT_ALLOW_DEV", "yes", "not on record"],
        ["GPU power limit", "1200.00 W", "1000.00 W"],
        ["status", "holds its SLO", "holds its SLO"],
    ]


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
