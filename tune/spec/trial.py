"""A trial is a value: everything that decides its result, and nothing about where it runs."""

from __future__ import annotations

import hashlib
import json

from tune.spec.base import FrozenModel
from tune.spec.engine_settings import EngineSettings
from tune.spec.hardware import Hardware
from tune.spec.load import Load, Slo
from tune.spec.model import Model
from tune.spec.split import Split
from tune.spec.stack import Stack

PROBE_FOLDER = "probe-1"
"""Where, in the folder of an attempt, a trial with one rate leaves the raw records of its probe."""


def probe_folder(number: int) -> str:
    """Where the probe `number` of a deployment, from 1 on, leaves them."""
    return f"probe-{number}"


class TrialSpec(FrozenModel):
    """Frozen and complete. The same configuration has the same `trial_id`, whoever proposes it."""

    model: Model
    hardware: Hardware
    split: Split
    prefill: EngineSettings
    decode: EngineSettings
    load: Load
    slo: Slo
    stack: Stack

    @property
    def trial_id(self) -> str:
        """`t` and 12 hex digits of the SHA-256 of the canonical form (sorted keys, floats as floats).

        The letter keeps Hydra from reading an id such as 1234567e9012 as a number.
        """
        return "t" + hashlib.sha256(self.canonical().encode()).hexdigest()[:12]

    def canonical(self) -> str:
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
