"""Define a trial as a value: everything that decides its result, and nothing about where it runs."""

from __future__ import annotations

import hashlib
import json

from tune.spec.engine_settings import EngineSettings, WithPools
from tune.spec.hardware import Hardware
from tune.spec.load import Load, Slo
from tune.spec.model import Model
from tune.spec.split import Split
from tune.spec.stack import Stack

PROBE_FOLDER = "probe-1"
"""Folder of the raw records of the only probe of a trial with one rate, in the folder of an attempt."""


def probe_folder(number: int) -> str:
    """Return the folder of the raw records of the probe `number` of a deployment; numbers begin at 1."""
    return f"probe-{number}"


class TrialSpec(WithPools):
    """Hold a complete configuration. Equal configurations have equal ids, whatever suggested them."""

    model: Model
    hardware: Hardware
    split: Split
    stack: Stack
    prefill: EngineSettings
    decode: EngineSettings
    load: Load
    slo: Slo

    @property
    def trial_id(self) -> str:
        """Return `t` and 12 hex digits of the SHA-256 of the canonical form (sorted keys, floats as floats).

        The letter keeps Hydra from reading an id such as 1234567e9012 as a number.
        """
        return "t" + hashlib.sha256(self.canonical().encode()).hexdigest()[:12]

    @property
    def environments(self) -> dict[str, dict[str, str | None]]:
        """Return the environment variables of each group of processes, by the path of their setting."""
        return {
            "prefill.env": self.prefill.env,
            "decode.env": self.decode.env,
            "stack.env": self.stack.env,
        }

    @property
    def identity_without_rate(self) -> str:
        """Return the canonical form, equal for trials that differ in rate, shuffle or accuracy run only."""
        load = self.load.at(1.0).model_copy(
            update={"rate_range_qps": None, "shuffle_seed": 0, "accuracy": False}
        )
        return self.model_copy(update={"load": load}).canonical()

    def canonical(self) -> str:
        """Return what decides the result as JSON with sorted keys and without spaces.

        The model's `context_tokens` and the stack's `engine_schema` only forbid trials, and its `repository`
        only helps to find the checkpoint, so they are left out.
        """
        without = {"model": {"context_tokens", "repository"}, "stack": {"engine_schema"}}
        plain = self.model_dump(mode="json", exclude=without)
        return json.dumps(plain, sort_keys=True, separators=(",", ":"))
