"""Define a trial as a value: everything that decides its result, and nothing about where it runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

from tune.errors import ConfigurationError
from tune.spec.engine import Engine
from tune.spec.engine_settings import AggregatedSettings, EngineSettings, WithPools
from tune.spec.hardware import Hardware
from tune.spec.load import Load, Slo
from tune.spec.model import Model
from tune.spec.split import READS_PROMPTS, Role, Split
from tune.spec.stack import Stack

PROBE_FOLDER = "probe-1"
"""Folder of the raw records of the only probe of a trial with one rate, in the folder of an attempt."""


def probe_folder(number: int) -> str:
    """Return the folder of the raw records of the probe `number` of a deployment; numbers begin at 1."""
    return f"probe-{number}"


class WorkerPool(NamedTuple):
    """Hold the workers of one role: their settings and their number."""

    role: Role
    engine: Engine
    workers: int


class TrialSpec(WithPools):
    """Hold a complete configuration. Equal configurations have equal ids, whatever suggested them.

    In an aggregated deployment, `prefill` and `decode` are the settings `aggregated`; in a disaggregated one,
    there are none of `aggregated`. Only the configuration that a sweep varies has other ones in stock
    (`with_own_pools`).
    """

    model: Model
    hardware: Hardware
    split: Split
    stack: Stack
    aggregated: AggregatedSettings
    prefill: EngineSettings
    decode: EngineSettings
    load: Load
    slo: Slo

    @property
    def pools(self) -> tuple[WorkerPool, ...]:
        """Return the pools of the deployment."""
        return tuple(
            WorkerPool(role, self.engine(role), self.split.workers(role)) for role in self.split.roles
        )

    def engine(self, role: Role) -> Engine:
        """Return the settings of a pool of the deployment."""
        return self.prefill if role in READS_PROMPTS else self.decode

    def with_own_pools(self) -> TrialSpec:
        """Return the trial with the settings of its own pools alone.

        Raises ConfigurationError for aggregated workers without settings.
        """
        if not self.split.aggregated_workers:
            return self if self.aggregated is None else self.model_copy(update={"aggregated": None})
        if self.aggregated is None:
            raise ConfigurationError(
                f"aggregated: found no settings for {self.split.aggregated_workers} aggregated workers; "
                "expected an option of them, such as aggregated=chunked, which split=aggregated chooses."
            )
        split = self.split.model_copy(update={"prefill_workers": 0, "decode_workers": 0})
        return self.model_copy(update={"split": split, "prefill": self.aggregated, "decode": self.aggregated})

    @cached_property
    def trial_id(self) -> str:
        """Return `t` and 12 hex digits of the SHA-256 of the canonical form (sorted keys, floats as floats).

        The letter keeps Hydra from reading an id such as 1234567e9012 as a number.
        """
        return "t" + hashlib.sha256(self.canonical().encode()).hexdigest()[:12]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> TrialSpec:
        """Return the trial with the fields of `update`; its id is its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("trial_id", None)
        return copied

    @property
    def environments(self) -> dict[str, dict[str, str | None]]:
        """Return the environment variables of each group of processes, by the path of their setting."""
        own = {f"{pool.role}.env": pool.engine.env for pool in self.pools}
        return own | {"stack.env": self.stack.env}

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
