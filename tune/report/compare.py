"""Compare two trials, or the best trials of two studies: what ran, settings that differ, and results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tune.analysis.ranking import rank
from tune.analysis.slo import figure_s
from tune.core.differences import leaf_differences
from tune.errors import ConfigurationError
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.posterior_summary import read_posterior
from tune.records.run_check import CheckResult
from tune.report.formatting import format_figure, format_latency, signed_percent
from tune.report.model_error_text import change_phrase, simulated_change
from tune.report.run_check_text import RESULT_WORDS, check_title
from tune.report.trial_status import describe_verdict
from tune.spec.metrics import LATENCY_P99, OUTPUT_TPS_PER_GPU, SHOWN_LIMITS
from tune.spec.trial import TrialSpec

_UNKNOWN = "not on record"
_Row = tuple[str, str, str, str]
"""Name, value of the first trial, value of the second trial, relative change."""


def render_comparison(runs: Path, a: str, b: str) -> str:
    """Render a table of versions, settings, nodes and checks of the run that differ, and of the results.

    Parameters
    ----------
    runs
        The folder that holds the studies.
    a, b
        STUDY/TRIAL_ID, or STUDY for the best trial of a study.

    Returns
    -------
    str
        Aligned lines without a final newline.

    Raises
    ------
    ConfigurationError
        If `a` or `b` names no measured trial.
    """
    (spec_a, outcome_a), (spec_b, outcome_b) = _find(runs, a), _find(runs, b)
    settings = leaf_differences(spec_a.model_dump(mode="json"), spec_b.model_dump(mode="json"))
    found_a, found_b = _found(outcome_a), _found(outcome_b)
    rows = [
        ("", f"{a}", f"{b}", ""),
        ("trial", spec_a.trial_id, spec_b.trial_id, ""),
        *_differing(found_a["versions"], found_b["versions"]),
        *((path, str(left), str(right), "") for path, left, right in settings),
        *_differing(found_a["others"], found_b["others"]),
        *_nodes(outcome_a, outcome_b),
        *_checks(outcome_a, outcome_b),
        *_results(outcome_a, outcome_b),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    change = simulated_change(outcome_a, outcome_b)
    if change:
        throughput = signed_percent(change.change_frac)
        lines.append(f"{throughput} {OUTPUT_TPS_PER_GPU.unit}: {change_phrase(change)}")
    return "\n".join(line.rstrip() for line in lines)


def _find(runs: Path, name: str) -> tuple[TrialSpec, Outcome]:
    """Return spec and outcome of a trial named STUDY/TRIAL_ID or STUDY; raises ConfigurationError."""
    study, _, trial_id = name.partition("/")
    folder = StudyFolder(runs / study)
    if not trial_id:
        ranked = rank(folder.outcomes(), read_posterior(folder.root))
        trial_id = ranked[0]["trial_id"] if ranked else "-"
    trial = folder.trial(trial_id)
    spec, outcome = trial.read_spec(), trial.read_outcome()
    if spec is None or outcome is None:
        studies = ", ".join(sorted(path.parent.name for path in runs.glob("*/study.json"))) or "none"
        raise ConfigurationError(
            f"{name}: no measured trial of that name in {runs}; expected STUDY or STUDY/TRIAL_ID. "
            f"Studies there: {studies}."
        )
    return spec, outcome


def _found(outcome: Outcome) -> dict[str, dict[str, str]]:
    """Return what a trial ran on, by name: versions of all software, and others."""
    provenance = outcome.provenance
    nodes: Mapping[str, Any] = provenance.get("evidence", {})
    image = {"digest of the image": provenance["image_sha256"]} if "image_sha256" in provenance else {}
    srun_env = provenance.get("environment", {}).get("cluster.srun_env", {})
    return {
        "versions": {**image, **nodes.get("versions", {}), **provenance.get("versions", {})},
        "others": {
            **{f"cluster.srun_env.{name}": value for name, value in srun_env.items()},
            **{f"cluster.{path}": text for path, text in provenance.get("launch_options", {}).items()},
            **nodes.get("hardware", {}),
            **(nodes.get("transport") or {}),
        },
    }


def _differing(a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[_Row]:
    """Yield a row for each name whose value differs, or is on record for one trial alone."""
    for name in {**a, **b}:
        if a.get(name) != b.get(name):
            yield name, a.get(name, _UNKNOWN), b.get(name, _UNKNOWN), ""


def _nodes(a: Outcome, b: Outcome) -> Iterator[_Row]:
    """Yield the nodes that only one trial had; all of both where equal nodes have other indices."""
    left, right = (tuple(each.provenance.get("evidence", {}).get("nodes", ())) for each in (a, b))
    if set(left) != set(right):
        yield "nodes", _only(left, right), _only(right, left), ""
    elif left != right:
        yield "order of nodes", ", ".join(left), ", ".join(right), ""


def _only(nodes: Sequence[str], others: Sequence[str]) -> str:
    """Return those of `nodes` that are none of `others`."""
    if not nodes:
        return _UNKNOWN
    return ", ".join(node for node in nodes if node not in others) or "no others"


def _checks(a: Outcome, b: Outcome) -> Iterator[_Row]:
    """Yield the checks of the run whose results differ, and those that are off in both."""
    left, right = ({check_title(check): check.result for check in each.checks} for each in (a, b))
    for title in {**left, **right}:
        of_a, of_b = left.get(title), right.get(title)
        if of_a != of_b or of_a == "off":
            yield f"check of {title}", _result_words(of_a), _result_words(of_b), ""


def _result_words(result: CheckResult | None) -> str:
    return RESULT_WORDS[result] if result else _UNKNOWN


def _results(a: Outcome, b: Outcome) -> Iterator[_Row]:
    """Yield the rows of status, throughput, latencies and cost."""

    def row(name: str, left: float | None, right: float | None, show: Callable[[float | None], str]) -> _Row:
        """Return one row with the relative change from `left` to `right`."""
        change = signed_percent(right / left - 1) if left and right else ""
        return name, show(left), show(right), change

    yield "status", describe_verdict(a), describe_verdict(b), ""
    throughput = f"{OUTPUT_TPS_PER_GPU.label} {OUTPUT_TPS_PER_GPU.unit}"
    yield row(throughput, a.output_tps_per_gpu, b.output_tps_per_gpu, format_figure)
    for limit in dict.fromkeys((*SHOWN_LIMITS, LATENCY_P99, *a.constraints.used, *b.constraints.used)):
        left, right = (figure_s(limit, outcome.statistics_of(limit.latency)) for outcome in (a, b))
        yield row(limit.label, left, right, partial(format_latency, limit.latency))
    yield row("GPU-hours", a.gpu_hours, b.gpu_hours, format_figure)
