"""Render the files of a submission to MLPerf Inference, and say where each lies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tune.loadgen.log_reader import read_logs
from tune.records.accuracy import Accuracy
from tune.records.outcome import Outcome, Probe
from tune.report import formatting
from tune.spec.base import FrozenModel
from tune.spec.mlperf_rules import BENCHMARK, MEASUREMENT_FIELDS, SYSTEM_FIELDS, MlperfRound, round_of
from tune.spec.trial import TrialSpec

_OLD_LAYOUT = "v5.1"
"""Last round with a folder of measurements beside the results. Source: submission checker, constants.py."""


class SubmitterFacts(FrozenModel):
    """Hold what only the submitter knows: names, and fields of the JSON files by their names."""

    submitter: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] = "SUBMITTER"
    division: Literal["open", "closed"] = "open"
    status: str = "available"
    system: dict[str, str | int] = Field(default_factory=dict)
    measurements: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class SubmittedRun:
    """Hold the trial that is submitted: its full run with LoadGen's `logs`, and its accuracy."""

    spec: TrialSpec
    outcome: Outcome
    performance: Probe
    accuracy: Accuracy
    scenario: str
    logs: Path

    @property
    def attempt(self) -> Path:
        """Return the folder of the attempt that made both runs."""
        return self.logs.parent

    @property
    def round(self) -> MlperfRound | None:
        """Return the round whose seeds the run had, None for other seeds."""
        return round_of(self.spec.load.schedule_seed)

    @property
    def system(self) -> str:
        """Return the name of the system, which names its folder too."""
        hardware = self.spec.hardware
        return re.sub(r"[^\w.-]+", "-", f"{hardware.name}x{hardware.gpus}_{self.spec.stack.name}")


@dataclass(frozen=True)
class Layout:
    """Hold where the parts of a submission lie, relative to its folder.

    Files about the measurements lie beside the JSON file `measurements`.
    """

    system: Path
    source: Path
    results: Path
    measurements: Path

    @classmethod
    def of(cls, run: SubmittedRun, facts: SubmitterFacts) -> Layout:
        """Return the layout of the round whose seeds the run had, the newest for other seeds."""
        root, own = Path(facts.division, facts.submitter), Path(run.system, BENCHMARK, run.scenario)
        results = root / "results" / own
        if run.round and run.round.version == _OLD_LAYOUT:
            measurements = root / "measurements" / own / f"{run.system}_{run.scenario}.json"
            source = root / "code"
        else:
            measurements, source = results / "measurements.json", root / "src"
        return cls(root / "systems" / f"{run.system}.json", source, results, measurements)


def system_description(run: SubmittedRun, facts: SubmitterFacts) -> dict[str, str | int]:
    """Return the description of the system: what the trial knows, under what the submitter states."""
    hardware, stack = run.spec.hardware, run.spec.stack
    loadgen = read_logs(run.logs).loadgen_version
    software = [f"LoadGen {loadgen}", *_software(run)]
    known: dict[str, str | int] = {
        **dict.fromkeys(SYSTEM_FIELDS, ""),
        "division": facts.division,
        "submitter": facts.submitter,
        "status": facts.status,
        "system_name": run.system,
        "system_type": "datacenter",
        "number_of_nodes": hardware.nodes,
        "accelerators_per_node": hardware.gpus_per_node,
        "accelerator_model_name": hardware.name,
        "accelerator_memory_capacity": f"{hardware.hbm_bytes / 1e9:.0f} GB",
        "framework": f"{stack.engine}, NVIDIA Dynamo ({stack.name})",
        "other_software_stack": ", ".join(software),
        "sw_notes": f"trial {run.outcome.trial_id} of tune",
    }
    return known | facts.system


def weights_description(run: SubmittedRun, facts: SubmitterFacts) -> dict[str, str]:
    """Return the description of the weights: what the trial knows, under what the submitter states."""
    known = dict.fromkeys(MEASUREMENT_FIELDS, "") | {
        "input_data_types": "int32",
        "retraining": "No",
        "starting_weights_filename": run.spec.model.served_name,
        "weight_data_types": run.spec.model.weight_dtype,
    }
    return known | facts.measurements


def user_conf(run: SubmittedRun) -> str:
    """Return the settings with which LoadGen ran, as its log states them."""
    figures = read_logs(run.logs)
    settings = {
        "target_qps": figures.target_qps,
        "min_duration": round((figures.min_duration_s or 0.0) * 1e3),
        "min_query_count": figures.min_queries,
        "performance_sample_count_override": run.spec.load.dataset.samples,
    }
    return "".join(f"*.Server.{name} = {value}\n" for name, value in settings.items())


def results_readme(run: SubmittedRun) -> str:
    """Return how the run was made."""
    command = formatting.command(run.outcome.provenance["overrides"])
    return (
        f"# {BENCHMARK}, {run.scenario}\n\nPerformance and accuracy were measured on one deployment. To "
        f"measure it again, with the facts of the cluster:\n\n```\n{command}\n```\n\nThe engine files, the "
        "environment and the command of every process are in the plan of trial "
        f"{run.outcome.trial_id}.\n"
    )


def source_readme(run: SubmittedRun) -> str:
    """Return what software made the run."""
    lines = "".join(f"- {line}\n" for line in _software(run))
    return f"# Software\n\nLoad client and launch are those of tune, with these packages:\n\n{lines}"


def _software(run: SubmittedRun) -> list[str]:
    """Return name and version of each package on record."""
    return [f"{name} {version}" for name, version in run.outcome.provenance.get("versions", {}).items()]
