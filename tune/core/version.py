"""Hold the version of tune, which needs no installed package."""

from __future__ import annotations

__version__ = "0.2.0"
