"""Keep the files alive by which workers are registered where they find each other by files.

A process of Dynamo deletes every file of the folder whose time is 10 s old. Each should renew its own,
but loses those that it wrote while two of its endpoints were registered at once: on two GPUs with Dynamo
1.3.1 the worker was then gone from the frontend 10 s after it had registered, and served on.
Source: Dynamo, lib/runtime/src/storage/kv/file.rs, get_or_create_bucket and expiry_thread.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

_AHEAD_S = 15.0
"""Seconds by which a time is ahead, for as long as nothing looks at the deployment."""


def keep_registered(discovery: Path) -> None:
    """Set the time of every file two folders below `discovery` ahead, if there is such a folder."""
    renewed_s = time.time() + _AHEAD_S
    for file in discovery.glob("*/*/*"):
        with suppress(FileNotFoundError):
            os.utime(file, (renewed_s, renewed_s))
