"""Test that reading any records, logs or configuration raises only the declared errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tune.analysis.shuffles import read_shuffles
from tune.config import compose_overrides
from tune.core.override_grammar import override_value
from tune.errors import ConfigurationError, ResumableError
from tune.loadgen.log_reader import log_figures
from tune.records.accuracy import read_accuracy
from tune.records.attempt_limit import read_limit
from tune.records.capacity_search import read_capacity, read_early_stop, read_probe_request
from tune.records.confirmation import read_confirmation
from tune.records.evidence import read_evidence
from tune.records.folders import StudyFolder, TrialFolder, read_attempt
from tune.records.posterior_summary import read_posterior
from tune.records.proposals import Proposal, append_proposal, read_proposals
from tune.records.requests import read_requests
from tune.records.scrapes import read_metrics

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"
LOGS = DATA / "loadgen" / "v5.0.25_published"
READERS: dict[str, Callable[[Path], object]] = {
    "study.json": lambda folder: StudyFolder(folder).read_study(),
    "outcome.json": lambda folder: TrialFolder(folder).read_outcome(),
    "spec.json": lambda folder: TrialFolder(folder).read_spec(),
    "attempt.json": read_attempt,
    "capacity.json": read_capacity,
    "early_stop.json": read_early_stop,
    "limit.json": read_limit,
    "probe_request.json": read_probe_request,
    "posterior.json": read_posterior,
    "confirmation.json": read_confirmation,
    "accuracy.json": read_accuracy,
    "evidence.json": read_evidence,
    "shuffles.json": read_shuffles,
    "proposals.jsonl": lambda folder: read_proposals(folder / "proposals.jsonl"),
    "requests.npz": lambda folder: read_requests(folder / "requests.npz"),
    "metrics.jsonl": lambda folder: list(read_metrics(folder / "metrics.jsonl")),
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
OUTCOME: dict[str, Any] = json.loads((DATA / "outcome.json").read_text())


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """Return bytes that may be a record: noise, JSON, or an outcome with other values in it."""
    kind = draw(st.sampled_from(("noise", "json", "outcome")))
    if kind == "noise":
        return draw(st.binary(max_size=200))
    if kind == "json":
        return json.dumps(draw(VALUES)).encode()
    changed = draw(st.dictionaries(st.sampled_from(sorted(OUTCOME)), VALUES, max_size=3))
    text = json.dumps(OUTCOME | changed).encode()
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=records())
def test_a_record_of_any_bytes_is_read_or_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with suppress(ConfigurationError, ResumableError):
        READERS[name](tmp_path)
    assert (tmp_path / name).read_bytes() == content


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_a_proposal_is_appended_behind_any_bytes(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "proposals.jsonl"
    path.write_bytes(content)
    proposal = Proposal(number=7, params={}, source="tpe", trial_id="t7")
    append_proposal(path, proposal)
    assert path.read_bytes().endswith(proposal.model_dump_json().encode() + b"\n")
    assert path.read_bytes().startswith(content[: content.rfind(b"\n") + 1])


LINES = (LOGS / "mlperf_log_detail.txt").read_text().splitlines(keepends=True)
SUMMARY = (LOGS / "mlperf_log_summary.txt").read_text().splitlines(keepends=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_logs_of_loadgen_with_other_values_are_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    for name, lines in (("mlperf_log_detail.txt", LINES), ("mlperf_log_summary.txt", SUMMARY)):
        chosen = data.draw(st.lists(st.sampled_from(lines), max_size=12))
        noise = data.draw(st.text(max_size=20) | VALUES.map(json.dumps))
        place = data.draw(st.integers(0, 80))
        text = "".join(line[:place] + noise + line[place:] for line in chosen)
        if chosen and '"value": ' in chosen[0]:
            before, _, after = chosen[0].partition('"value": ')
            text += before + '"value": ' + noise + after[after.find(', "time_ms') :]
        (tmp_path / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    with suppress(ConfigurationError, ResumableError):
        json.dumps(log_figures(tmp_path))


PATHS = ("load.target_qps", "hardware.nodes", "split", "prefill.extra", "slo.ttft_p99_s", "study.name")


@settings(max_examples=60, deadline=None)
@given(path=st.sampled_from((*PATHS, "sweep.space", "nothing", "")), value=VALUES, quoted=st.booleans())
def test_an_override_of_any_value_composes_or_is_refused(path: str, value: Any, quoted: bool) -> None:
    with suppress(ConfigurationError):
        word = override_value(value) if quoted else str(value)
        compose_overrides((f"{path}={word}",))
