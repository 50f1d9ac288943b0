"""Keep the files alive by which workers are registered where they find each other by files.

A process of Dynamo deletes every file of the folder that nobody touched for 10 s. Each should touch its own,
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
"""Seconds by which a touch is dated ahead, for the times in which nothing looks at the deployment."""


def keep_registered(discovery: Path) -> None:
    """Touch every file of `discovery`, two folders down; do nothing where there is no such folder."""
    touched_s = time.time() + _AHEAD_S
    for file in discovery.glob("*/*/*"):
        with suppress(FileNotFoundError):
            os.utime(file, (touched_s, touched_s))
