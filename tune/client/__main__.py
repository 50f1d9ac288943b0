"""Run the load client: `python -m tune.client CLIENT_JSON --endpoint URL [--endpoint URL ...] --out FOLDER`.

Exit codes: 0 the run completed; 2 the settings are wrong, nothing was run; 3 the endpoint does not serve the
model, every request failed, or the client itself is at fault; 4 stopped as its settings ask
(`stop_when_futile`), with requests.npz up to the request that made it certain that the SLO does not hold; 130
interrupted, with requests.npz of what was known.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tune.client.client_settings import STOPPED_EXIT_CODE, read_client_settings
from tune.client.run import run_client
from tune.errors import TuneError


def main(arguments: Sequence[str]) -> int:
    """Run the client with the command line `arguments` and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tune.client", description="Load a deployment.")
    parser.add_argument("client_json", type=Path, help="the client settings of a rendered plan")
    parser.add_argument(
        "--endpoint",
        required=True,
        action="append",
        metavar="URL",
        help="a frontend of the deployment: http://HOST:PORT/v1; once for each",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for LoadGen's logs and requests.npz")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        settings = read_client_settings(options.client_json, options.endpoint)
        futility = run_client(settings, options.out, time.monotonic_ns, time.time, _print_line)
    except KeyboardInterrupt:
        _print_line(f"interrupted; what is known so far is in {options.out}")
        return 130
    except TuneError as error:
        _print_line(str(error))
        return error.exit_code
    except Exception:  # an error of ours: print its trace; 3 lets the attempt be tried again
        traceback.print_exc()
        return 3
    return STOPPED_EXIT_CODE if futility else 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt: the handler of SIGTERM."""
    raise KeyboardInterrupt


def _print_line(line: str) -> None:
    """Print `line` on the standard error."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # LoadGen's thread cannot be futility, and ending under it crashes the interpreter
