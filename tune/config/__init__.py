"""Compose and validate the configuration of a command with Hydra."""

from tune.config.composition import (
    ComposedConfig,
    compose_command_line,
    compose_overrides,
    shipped_option,
    shipped_options,
    shipped_settings,
    trial_overrides,
)
from tune.config.explanations import InvalidSettings

__all__ = [
    "ComposedConfig",
    "InvalidSettings",
    "compose_command_line",
    "compose_overrides",
    "shipped_option",
    "shipped_options",
    "shipped_settings",
    "trial_overrides",
]
