"""Test how the reports of several nodes become one record."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tune.records.evidence import (
    NodeEvidence,
    merge_reports,
    read_evidence,
    read_node_reports,
    write_evidence,
)

HOSTS = ("g01", "g02", "g03")


def node(host: str, driver: str | None = "580") -> NodeEvidence:
    versions = {"Python": "3.12.3"} | ({"GPU driver": driver} if driver else {})
    missing = {} if driver else {"GPUs": "no nvidia-smi"}
    return NodeEvidence(host=host, versions=versions, hardware={"GPUs": "4 x B200"}, missing=missing)


@given(st.lists(st.sampled_from([None, "570", "580"]), min_size=3, max_size=3))
def test_equal_values_are_one_text_and_others_name_every_node(drivers: list[str | None]) -> None:
    reports = [node(host, driver) for host, driver in zip(HOSTS, drivers, strict=True)]
    evidence = merge_reports(HOSTS, reports, "it ended")
    assert evidence.versions["Python"] == "3.12.3"
    text = evidence.versions.get("GPU driver")
    if len(set(drivers)) == 1:
        assert text == drivers[0]
    else:
        assert text is not None
        for host, driver in zip(HOSTS, drivers, strict=True):
            (part,) = [part for part in text.split("; ") if host in part]
            assert part.startswith(driver or "nothing")


def test_transport_is_what_the_nodes_that_were_asked_found() -> None:
    """A record of a node that was not asked leaves it unknown."""
    asked = [node(host).model_copy(update={"transport": {"UCX_TLS": "rc"}}) for host in HOSTS]
    assert merge_reports(HOSTS, asked, "it ended").transport == {"UCX_TLS": "rc"}
    other = asked[1].model_copy(update={"transport": {}})
    mixed = merge_reports(HOSTS, [asked[0], other, asked[2]], "it ended").transport
    assert mixed == {"UCX_TLS": "rc on g01, g03; nothing on g02"}
    assert merge_reports(HOSTS, [node(host) for host in HOSTS], "it ended").transport is None


def test_silent_node_is_named(tmp_path: Path) -> None:
    evidence = merge_reports(HOSTS, [node("g01"), node("g03")], "no answer within 120 s")
    assert evidence.nodes == HOSTS
    assert evidence.missing == {"report of g02": "no answer within 120 s"}
    write_evidence(tmp_path, evidence)
    assert read_evidence(tmp_path) == evidence
    assert read_evidence(tmp_path / "none") is None


def test_reports_are_found_among_other_output(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = [json.dumps({"evidence": node(host).model_dump(mode="json")}) for host in HOSTS]
    torn = lines[1][: len(lines[1]) // 2]
    log.write_text(f"srun: hello\n{lines[0]}srun: also here\n{torn}\n{lines[2]}\n")
    assert [report.host for report in read_node_reports(log)] == ["g01", "g03"]
    assert read_node_reports(tmp_path / "none") == []
