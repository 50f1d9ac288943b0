"""Parse the command line, dispatch to its action, and set the exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping

from tune.cli.calibrate_command import calibrate_action
from tune.cli.confirm_command import confirm_action
from tune.cli.export_command import export
from tune.cli.plan_commands import plan_action, preflight_action
from tune.cli.recorded_commands import cancel_action, logs_action, status_action
from tune.cli.report_commands import compare_action, parse_action, report_action
from tune.cli.run_commands import run_action
from tune.cli.settings_reference import register_settings_help
from tune.config import Composition, compose_command_line
from tune.errors import ResumableError, TuneError

# An action imports what only it needs (optuna, pandas, plotly, numba): --help stays quick.

_INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells report it."""

ACTIONS: Mapping[str, Callable[[Composition], None]] = {
    "run": run_action,
    "plan": plan_action,
    "preflight": preflight_action,
    "status": status_action,
    "logs": logs_action,
    "cancel": cancel_action,
    "report": report_action,
    "confirm": confirm_action,
    "compare": compare_action,
    "parse": parse_action,
    "calibrate": calibrate_action,
    "export": export,
}
"""Actions by the value of `action`."""


def run_command_line() -> int:
    """Compose `sys.argv`, run its action, print errors, and return the exit code."""
    register_settings_help()
    try:
        composition = compose_command_line()
        if composition is None:
            return 0
        ACTIONS[composition.settings.action](composition)
    except TuneError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. Results so far are saved; run the same command to resume.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:  # an error inside tune: print its trace, and that the records are intact
        traceback.print_exc()
        print(
            "Internal error in tune. Recorded results are intact; the same command resumes from them.",
            file=sys.stderr,
        )
        return ResumableError.exit_code
    return 0
