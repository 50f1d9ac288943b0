"""Compose and validate the configuration of a command with Hydra."""

from tune.config.composition import (
    Composition,
    compose_command_line,
    compose_overrides,
    shipped_options,
    shipped_settings,
    trial_overrides,
)

__all__ = [
    "Composition",
    "compose_command_line",
    "compose_overrides",
    "shipped_options",
    "shipped_settings",
    "trial_overrides",
]
