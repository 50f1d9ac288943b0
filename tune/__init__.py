"""Find the serving configuration with the most output tokens/s per GPU under a latency SLO.

`load_study`, `compose` and `simulate` (`tune.api`) are loaded on first use, so `import tune` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tune.core.version import __version__

if TYPE_CHECKING:
    from tune.api import Study as Study
    from tune.api import Trial as Trial
    from tune.api import compose as compose
    from tune.api import load_study as load_study
    from tune.api import simulate as simulate

__all__ = ["Study", "Trial", "__version__", "compose", "load_study", "simulate"]

_LAZY = ("Study", "Trial", "compose", "load_study", "simulate")
"""Names of `tune.api` that are attributes of the package."""


def __getattr__(name: str) -> object:
    """Load an attribute of `tune.api`. Raises AttributeError for any other name."""
    if name not in _LAZY:
        raise AttributeError(f"module 'tune' has no attribute {name!r}")
    from tune import api

    return getattr(api, name)


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *_LAZY})
