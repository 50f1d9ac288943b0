"""Run action=bootstrap: make the Python environment of a cluster's nodes."""

from __future__ import annotations

from tune.backends.registry import BACKENDS
from tune.cli.output import show
from tune.config import ComposedConfig
from tune.errors import ConfigurationError


def bootstrap_action(composition: ComposedConfig) -> None:
    """Make the environment that `cluster.python` names on a node, and say what is there.

    Raises ConfigurationError where the backend has no nodes of their own.
    """
    from tune.cli.output import print_progress

    settings = composition.settings
    bootstrap = BACKENDS[settings.cluster.kind].bootstrap
    if bootstrap is None:
        expected = " or ".join(name for name, entry in BACKENDS.items() if entry.bootstrap)
        raise ConfigurationError(
            f"action=bootstrap: found cluster={settings.cluster.kind}, whose trials run with this "
            f"interpreter; expected cluster={expected}, whose nodes may need another one."
        )
    show(bootstrap(settings, print_progress))
    show(f"Jobs use it with cluster.python={settings.cluster.python}; action=preflight checks it.")
