"""Find out what this node and its software are, and print it as one line of JSON.

    python3 collect_evidence.py PACKAGE ...

`versions` holds those of the distributions PACKAGE, of Python, of the kernel, of the GPU driver, and of NCCL
and UCX as the libraries state them. `hardware` holds GPUs, their clocks and power limits. `transport` holds
the variables that choose how KV caches travel, as a worker finds them. What could not be found out is in
`missing`, with the reason. It needs the standard library alone and starts nvidia-smi, no other program.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

_SECONDS = 40
"""Time for nvidia-smi to answer: it wakes every GPU where persistence mode is off."""

_GPU_FIELDS = {
    "GPU driver": "driver_version",
    "GPUs": "name",
    "GPU memory": "memory.total",
    "GPU power limit": "power.limit",
    "highest SM clock": "clocks.max.sm",
    "SM clock of applications": "clocks.applications.graphics",
}
"""What is reported of every GPU, and its field in nvidia-smi --query-gpu."""


def nccl_text(number: int) -> str:
    """Return the version that NCCL states as major x 10000 + minor x 100 + patch, as it does since 2.9.

    Source: NCCL, nccl.h, NCCL_VERSION.
    """
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def nccl_version(path: str) -> str:
    """Return the version that the NCCL at `path` states. Raises OSError where it cannot be loaded."""
    number = ctypes.c_int()
    ctypes.CDLL(path).ncclGetVersion(ctypes.byref(number))
    return nccl_text(number.value)


def ucx_version(path: str) -> str:
    """Return the version that the UCX at `path` states. Raises OSError where it cannot be loaded."""
    state = ctypes.CDLL(path).ucp_get_version_string
    state.restype = ctypes.c_char_p
    return str(state().decode())


_TRANSPORT = re.compile(
    r"(?!.*(KEY|TOKEN|SECRET|PASS))(UCX_|NIXL_|MC_(FORCE|IB|GID|MTU)|.*_(KVCACHE|KV_TRANSFER)(_|$))"
)
"""Names of the variables that choose how KV caches travel: of UCX, NIXL, Mooncake and the engines. A name
that could be that of a secret is none of them; neither is MC_HOST_*, in which MinIO's client has its keys."""

_LIBRARIES: dict[str, tuple[str, str, Callable[[str], str]]] = {
    "NCCL": ("libnccl.so.2", "nvidia/nccl/lib/libnccl.so.2", nccl_version),
    "UCX": ("libucp.so.0", "", ucx_version),
    "UCX of NIXL": ("", "nixl*.libs/libucp*.so*", ucx_version),
}
"""By name: the library as the loader finds it; a pattern of its path in a folder of Python's packages, which
PyTorch and NIXL prefer; and what reads its version. One of both paths may be empty."""


def bundled(pattern: str) -> Iterator[str]:
    """Yield the files that match `pattern` in the folders of Python's packages."""
    for folder in sys.path:
        if pattern and folder:
            yield from map(str, sorted(Path(folder).glob(pattern)))


def package_versions(names: list[str], missing: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield name and version of each distribution; enter those that are not installed in `missing`."""
    for name in names:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            missing[name] = f"not installed for {sys.executable}"


def library_versions(missing: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield name and version of each library; enter those that cannot be loaded in `missing`."""
    for name, (loaded, pattern, version) in _LIBRARIES.items():
        path = next(bundled(pattern), loaded)
        try:
            if path:
                yield name, version(path)
        except (OSError, AttributeError) as error:
            missing[name] = str(error)


def gpu_values(missing: dict[str, str]) -> dict[str, str]:
    """Return what nvidia-smi says of the GPUs of this node; enter what it does not say in `missing`."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS.values())}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        missing["GPUs"] = str(error)
        return {}
    rows = [row for line in done.stdout.splitlines() if len(row := line.split(", ")) == len(_GPU_FIELDS)]
    if done.returncode or not rows:
        missing["GPUs"] = f"nvidia-smi: {(done.stdout + done.stderr).strip() or 'no GPU'}"
        return {}
    found = {}
    for name, values in zip(_GPU_FIELDS, zip(*rows, strict=True), strict=True):
        counts = Counter(values)
        if any(value.startswith("[") for value in counts):  # [N/A], [Not Supported], [Deprecated]
            missing[name] = f"nvidia-smi: {', '.join(counts)}"
        elif name == "GPUs":
            found[name] = ", ".join(f"{count} x {value}" for value, count in counts.items())
        else:
            found[name] = ", ".join(counts)
    return found


def evidence(packages: list[str]) -> dict[str, object]:
    """Return what this node and its software are, with the versions of the distributions `packages`."""
    missing: dict[str, str] = {}
    hardware = gpu_values(missing)
    versions = dict(package_versions(packages, missing)) | dict(library_versions(missing))
    driver = hardware.pop("GPU driver", None)
    versions |= {"GPU driver": driver} if driver else {}
    return {
        "host": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "versions": versions | {"Python": platform.python_version(), "kernel": platform.release()},
        "hardware": hardware | {"architecture": platform.machine(), "CPU cores": str(os.cpu_count())},
        "transport": {name: os.environ[name] for name in sorted(os.environ) if _TRANSPORT.match(name)},
        "missing": missing,
    }


if __name__ == "__main__":
    print("\n" + json.dumps({"evidence": evidence(sys.argv[1:])}), flush=True)
