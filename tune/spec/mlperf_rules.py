"""List what the benchmark's rules name: rounds by seeds, scenarios by limits, fields of its files.

Source: MLPerf Inference, mlperf.conf and tools/submission/submission_checker/constants.py (v6.1).
"""

from __future__ import annotations

from typing import NamedTuple

from tune.spec.load import Slo

BENCHMARK = "llama3.1-405b"
SAMPLES = 8313


class MlperfRound(NamedTuple):
    """Hold the seeds of LoadGen that one round of the benchmark demands."""

    version: str
    qsl_seed: int
    sample_index_seed: int
    schedule_seed: int


ROUNDS = (
    MlperfRound("v5.1", 1780908523862526354, 14771362308971278857, 18209322760996052031),
    MlperfRound("v6.0", 2465351861681999779, 14276810075590677512, 3936089224930324775),
)
"""Rounds by age; v6.1 has no Llama-3.1-405B. The first is that of load.seed=mlperf, in which the reference
configuration was published."""

_SCENARIOS = {(4.5, 0.08): "Interactive", (6.0, 0.175): "Server"}
"""Scenario by its limits on p99 TTFT and p99 TPOT, in seconds."""

SYSTEM_FIELDS = (
    *("division", "submitter", "status", "system_name", "system_type", "system_type_detail"),
    *("number_of_nodes", "framework", "operating_system", "other_software_stack", "cooling"),
    *("host_processor_model_name", "host_processors_per_node", "host_processor_core_count"),
    *("host_processor_frequency", "host_processor_caches", "host_processor_interconnect"),
    *("host_memory_capacity", "host_memory_configuration", "host_storage_capacity", "host_storage_type"),
    *("host_networking", "host_networking_topology", "host_network_card_count"),
    *("accelerators_per_node", "accelerator_model_name", "accelerator_memory_capacity"),
    *("accelerator_memory_configuration", "accelerator_frequency", "accelerator_on-chip_memories"),
    *("accelerator_host_interconnect", "accelerator_interconnect", "accelerator_interconnect_topology"),
    *("hw_notes", "sw_notes"),
)
"""Fields that the description of a system has to have."""

MAY_BE_EMPTY = frozenset(
    (
        *("system_type_detail", "host_processor_frequency", "host_processor_caches"),
        *("host_processor_interconnect", "accelerator_frequency", "accelerator_on-chip_memories"),
        *("accelerator_interconnect_topology", "hw_notes", "sw_notes"),
    )
)
"""Those of SYSTEM_FIELDS that may be an empty text."""

MEASUREMENT_FIELDS = (
    *("input_data_types", "retraining", "starting_weights_filename"),
    *("weight_data_types", "weight_transformations"),
)
"""Fields of measurements.json; none may be empty."""


def round_of(schedule_seed: int) -> MlperfRound | None:
    """Return the round with that seed of the schedule, None where there is none."""
    return next((each for each in ROUNDS if each.schedule_seed == schedule_seed), None)


def scenario_of(slo: Slo) -> str | None:
    """Return the scenario of the benchmark that has the limits of `slo`, None where there is none."""
    if slo.ttft_p99_s is None or slo.tpot_p99_s is None:
        return None
    return _SCENARIOS.get((slo.ttft_p99_s, slo.tpot_p99_s))
